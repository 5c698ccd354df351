"""How judged figures are written for people."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from adv_lightning.evaluation.section import Table
from adv_lightning.module import AdversarialModule

_ALWAYS = ("eps", "steps", "bounds", "seed")


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return rows of the record as a table, rates in percent."""
    return Table(
        title,
        ["attack", "n", "error [95 %]", "conf.", "wrong"],
        [
            [
                row["name"] if row["attack"] is None else describe(row["attack"]),
                str(row["n"]),
                f"{100 * row['error']:.2f} [{100 * row['interval'][0]:.2f}, {100 * row['interval'][1]:.2f}]",
                _percent(row.get("confidence_on_mistakes")),
                _percent(row.get("wrong_class_probability")),
            ]
            for row in rows
        ],
    )


def describe(attack: dict[str, Any]) -> str:
    """Write an attack's configuration as a call, without what is at its default and says little."""
    module, _, name = attack["class_path"].rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    defaults = {} if kind is None else {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    told = {k: v for k, v in attack["init_args"].items() if k in _ALWAYS or k not in defaults or v != defaults[k]}
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in told.items())
    return f"{class_name(attack)}({arguments})"


def _short(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return describe(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def class_name(described: dict[str, Any]) -> str:
    """Return the name of the class that a configuration describes."""
    return str(described["class_path"]).rsplit(".", 1)[-1]


def mode(module: AdversarialModule) -> str:
    """Return "eval" if no part of the network is in train mode."""
    return "train" if any(part.training for part in module.backbone.modules()) else "eval"
