"""How results are written for people."""

from __future__ import annotations

import math
import re
from typing import Any

from adv_lightning.attacks import FGSM, PGD, Attack
from adv_lightning.attacks.description import as_call, class_name, class_path
from adv_lightning.evaluation.report_section import Table, percent, rate_with_interval
from adv_lightning.methods.moved_paths import moved
from adv_lightning.module import AdversarialModule


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return rows of the record as a table, rates in percent."""
    return Table(
        title,
        ["attack", "n", "error, % [95 % interval]", "confidence of mistakes, %", "on wrong classes, %"],
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


def headline(rows: list[dict[str, Any]], worst: list[dict[str, Any]]) -> str:
    """Return the main figures in a sentence or two: the clean error, and the worst of the attacks in `rows`."""
    clean, *attacked = rows
    said = f"Clean error {_in_words(clean)}."
    if not attacked:
        return f"{said} No attack was tried."
    row = worst[0] if worst else attacked[0]
    attacks = ", ".join(dict.fromkeys(as_call(each["attack"]) for each in attacked))
    return f"{said} {'Worst case' if worst else 'Error'} {_in_words(row)} under {attacks}."


def _in_words(row: dict[str, Any]) -> str:
    return f"{100 * row['error']:.2f} % (n={row['n']})"


def curve_of(
    kind: type[FGSM] | type[PGD], clean: dict[str, Any], rows: list[dict[str, Any]], steps: int
) -> list[tuple[float, float, float, float, float | None]]:
    """Return points (eps, error, low, high, confidence on mistakes) of FGSM, or of PGD with `steps`, from eps 0 on.

    The bounds are those of the first such row. PGD beyond the largest eps of FGSM is left out: it serves a check.
    """
    own = [(row, row["attack"]["init_args"]) for row in rows if _is(kind, row)]
    own = [(row, a) for row, a in own if a.get("steps", steps) == steps and a.get("restarts", 1) == 1]
    largest = max((row["attack"]["init_args"]["eps"] for row in rows if _is(FGSM, row)), default=math.inf)
    points = {0.0: clean}
    for row, a in own:
        if a["bounds"] == own[0][1]["bounds"] and a["eps"] <= largest:
            points.setdefault(a["eps"], row)
    return [(eps, row["error"], *row["interval"], row["confidence_on_mistakes"]) for eps, row in sorted(points.items())]


def key_of(name: str) -> str:
    """Return a name as part of a logged key, which contains no blanks."""
    return "_".join(name.split())


def mode(module: AdversarialModule) -> str:
    """Return "eval" if no part of the network is in train mode, else "train"."""
    return "train" if any(part.training for part in module.backbone.modules()) else "eval"


def _is(kind: type[Attack], row: dict[str, Any]) -> bool:
    return row["attack"] is not None and bool(moved(row["attack"])["class_path"] == class_path(kind))


def _label(row: dict[str, Any]) -> str:
    """Return the first cell of a row: the attack as a call, after the name that the user gave it."""
    if row["attack"] is None:
        return str(row["name"])
    call = as_call(row["attack"])
    # The class's name with at most a number or two tells nothing that the call does not.
    plain = re.fullmatch(rf"{re.escape(class_name(row['attack']))}(-\d+)?( [\d.e+-]+)?", str(row["name"]))
    return call if plain else f"{row['name']}: {call}"
