"""The threat model of the attack in a row of results, also of rows from before records contained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from adv_lightning.attacks import Attack
from adv_lightning.attacks.description import build
from adv_lightning.attacks.threat_model import ThreatModel
from adv_lightning.methods.moved_paths import moved


def described(attack: Attack | None) -> dict[str, Any]:
    """Return what a row says about its attack: its description and its threat model."""
    return {"attack": None} if attack is None else {"attack": attack.config(), **attack.threat_model().to_json()}


def threat_model_of(row: Mapping[str, Any]) -> ThreatModel:
    """Return the threat model of a row's attack.

    It is in the row. For an older row without it, the attack is rebuilt from its description. Everything is unknown
    if there is no attack, or if it cannot be rebuilt.
    """
    if row.get("attack") is None:
        return ThreatModel()
    if "uses_label" in row:
        return ThreatModel.from_json(row)
    attack = rebuilt(row["attack"])
    return ThreatModel() if attack is None else attack.threat_model()


def full_description(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a row's attack with today's class paths, and with defaults if it can be rebuilt."""
    description = row["attack"]
    attack = None if "uses_label" in row else rebuilt(description)
    return dict(moved(description)) if attack is None else attack.config()


def rebuilt(description: Mapping[str, Any]) -> Attack | None:
    """Build an attack from its description, of today or from before a move; None if that fails."""
    return _rebuilt(json.dumps(description, default=str))


@lru_cache(maxsize=1000)
def _rebuilt(description: str) -> Attack | None:
    try:
        return build(moved(json.loads(description)), Attack)
    except Exception:  # the class may be missing, have changed, or look for a file that is elsewhere
        return None
