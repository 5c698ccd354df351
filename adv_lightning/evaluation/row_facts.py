"""The facts about the attack of a row of results, also of rows from before records contained them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from adv_lightning.attacks import Attack
from adv_lightning.attacks.config import build
from adv_lightning.attacks.facts import Facts
from adv_lightning.methods.checkpoint_format import moved


def described(attack: Attack | None) -> dict[str, Any]:
    """Return what a row says about its attack: its description and its facts."""
    return {"attack": None} if attack is None else {"attack": attack.config(), **attack.facts().to_json()}


def facts_of(row: Mapping[str, Any]) -> Facts:
    """Return the facts about a row's attack.

    They are in the row; for an old row without them, the attack is rebuilt from its description. All are unknown if
    there is no attack, or if it cannot be rebuilt.
    """
    if row.get("attack") is None:
        return Facts()
    if "uses_label" in row:
        return Facts.from_json(row)
    attack = rebuilt(row["attack"])
    return Facts() if attack is None else attack.facts()


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
