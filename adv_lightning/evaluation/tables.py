"""How judged figures are written for people."""

from __future__ import annotations

import inspect
import math
import re
import sys
from typing import Any

from adv_lightning.attacks import FGSM, PGD
from adv_lightning.evaluation.section import Table, percent, rate_with_interval
from adv_lightning.module import AdversarialModule

_ALWAYS = ("eps", "steps", "bounds", "seed")


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return rows of the record as a table, rates in percent."""
    return Table(
        title,
        ["attack", "n", "error [95 %]", "conf.", "wrong"],
        [
            [
                _label(row),
                str(row["n"]),
                rate_with_interval(row["error"], row["interval"]),
                percent(row.get("confidence_on_mistakes")),
                percent(row.get("wrong_class_probability")),
            ]
            for row in rows
        ],
    )


def curve_of(
    kind: type[FGSM] | type[PGD], clean: dict[str, Any], rows: list[dict[str, Any]], steps: int
) -> list[tuple[float, float, float, float, float | None]]:
    """Return (eps, error, low, high, confidence on mistakes) under FGSM, or PGD of `steps`, from no eps on.

    The bounds are those of the first such row; PGD beyond the largest eps of FGSM is left out: it is there for
    another reason.
    """
    path = f"{kind.__module__}.{kind.__qualname__}"
    own = [(row, row["attack"]["init_args"]) for row in rows if row["attack"] and row["attack"]["class_path"] == path]
    own = [(row, a) for row, a in own if a.get("steps", steps) == steps and a.get("restarts", 1) == 1]
    single = [row["attack"]["init_args"]["eps"] for row in rows if row["attack"] and _is(FGSM, row["attack"])]
    points = {0.0: clean}
    for row, a in own:
        if a["bounds"] == own[0][1]["bounds"] and a["eps"] <= max(single, default=math.inf):
            points.setdefault(a["eps"], row)
    return [(eps, row["error"], *row["interval"], row["confidence_on_mistakes"]) for eps, row in sorted(points.items())]


def key_of(name: str) -> str:
    """Return a name as part of a logged key, which holds no blanks."""
    return "_".join(name.split())


def _is(kind: type, attack: dict[str, Any]) -> bool:
    return bool(attack["class_path"] == f"{kind.__module__}.{kind.__qualname__}")


def _label(row: dict[str, Any]) -> str:
    """Return what stands at the head of a row: the attack as a call, after the name that the user gave it."""
    if row["attack"] is None:
        return str(row["name"])
    call = describe(row["attack"])
    # A name that is the class's with a number or two says nothing that the call does not.
    plain = re.fullmatch(rf"{re.escape(class_name(row['attack']))}(-\d+)?( [\d.e+-]+)?", str(row["name"]))
    return call if plain else f"{row['name']}: {call}"


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


def class_name(described: dict[str, Any]) -> str:
    """Return the name of the class that a configuration describes."""
    return str(described["class_path"]).rsplit(".", 1)[-1]


def mode(module: AdversarialModule) -> str:
    """Return "eval" if no part of the network is in train mode."""
    return "train" if any(part.training for part in module.backbone.modules()) else "eval"
