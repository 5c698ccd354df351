"""Verdicts: how a measured figure compares with the published one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import mean, stdev
from typing import NamedTuple

from adv_lightning.paper.claims import Direction, Quantity


class Verdict(StrEnum):
    """Verdict of a row of the report."""

    REPRODUCED = "reproduced"
    BETTER = "better"
    SAME_DIRECTION = "same direction"
    DIFFERS = "differs"
    MEASURED = "measured"
    PICTURE = "picture"
    NOT_RUN = "not run"
    NOT_BUILT = "not built"


MEANING = {
    Verdict.REPRODUCED: "within the tolerance, or twice that if within two standard errors of three seeds or more",
    Verdict.BETTER: "not reproduced, and on the better side of the paper's figure",
    Verdict.SAME_DIRECTION: "neither, but the comparison that the paper makes holds",
    Verdict.DIFFERS: "none of these, or the comparison that the paper makes does not hold",
    Verdict.MEASURED: "the paper has no figure to compare with",
    Verdict.PICTURE: "drawn by `figures`, for the eye to judge",
    Verdict.NOT_RUN: "the command is known and has not been run",
    Verdict.NOT_BUILT: "the model or the data are not here",
}


class Judgement(NamedTuple):
    """A verdict and its reason."""

    verdict: Verdict
    why: str


def judge(quantity: Quantity, values: Sequence[float], other: float | None = None) -> Judgement:
    """Return the verdict on a quantity.

    Args:
        quantity: The quantity, with the published figure if there is one.
        values: Figures of the seeds, in the quantity's unit. Empty: nothing was measured.
        other: Figure that the direction compares with, in the same unit. None: unknown.
    """
    if not values:
        return _absent(quantity)
    found, published = mean(values), quantity.published
    held = _direction(quantity, found, other)
    if published is None:
        if quantity.direction is None:
            return Judgement(Verdict.MEASURED, "the paper has no figure")
        if held is None:
            return Judgement(Verdict.MEASURED, f"nothing to compare with: {quantity.direction.words} is not known")
        return Judgement(Verdict.SAME_DIRECTION if held[0] else Verdict.DIFFERS, held[1])
    distance = f"{amount(abs(found - published), quantity)} {'above' if found > published else 'below'} the paper"
    comparison = "" if held is None else f"; {held[1]}"
    if held is not None and not held[0]:
        return Judgement(Verdict.DIFFERS, distance + comparison)
    if quantity.bound == "above":
        return Judgement(Verdict.REPRODUCED if found > published else Verdict.DIFFERS, distance + comparison)
    if reason := _agrees(quantity, values):
        return Judgement(Verdict.REPRODUCED, reason + comparison)
    if quantity.better is not None and (found < published) == (quantity.better == "lower"):
        return Judgement(Verdict.BETTER, distance + comparison)
    return Judgement(Verdict.DIFFERS if held is None else Verdict.SAME_DIRECTION, distance + comparison)


def amount(value: float, quantity: Quantity) -> str:
    """Write a difference with its unit."""
    return {"%": f"{value:.2f} points", "px": f"{value:.2f} px", "number": f"{value:.3g}"}[quantity.unit]


def _tolerance(quantity: Quantity) -> str:
    return f"{quantity.allowed:g}" + {"%": " points", "px": " px", "number": ""}[quantity.unit]


def _absent(quantity: Quantity) -> Judgement:
    if quantity.picture is not None:
        return Judgement(Verdict.PICTURE, f"drawn as {quantity.picture}")
    if quantity.missing is None:
        return Judgement(Verdict.NOT_RUN, "there is no result")
    return Judgement(Verdict(quantity.missing.kind), quantity.missing.why)


def _agrees(quantity: Quantity, values: Sequence[float]) -> str:
    """Return why the figures agree with the published one, or "" if they do not."""
    assert quantity.published is not None
    distance, n = abs(mean(values) - quantity.published), len(values)
    # Allow for the rounding of the subtraction.
    if distance <= quantity.allowed * (1 + 1e-9):
        return f"within {_tolerance(quantity)}" + (", one seed" if n == 1 else "")
    # A wide spread agrees with anything, so it may double the tolerance at most.
    if n > 2 and distance <= min(2 * stdev(values) / math.sqrt(n), 2 * quantity.allowed):
        return f"within 2 standard errors of {n} seeds, {amount(2 * stdev(values) / math.sqrt(n), quantity)}"
    return ""


def _direction(quantity: Quantity, found: float, other: float | None) -> tuple[bool, str] | None:
    """Return whether the comparison holds, and its description; None if there is none."""
    direction: Direction | None = quantity.direction
    if direction is None or other is None:
        return None
    level = other + (quantity.tolerance or 0)
    held = {"below": found < other, "above": found > other, "not above": found <= level}[direction.relation]
    side = "below" if found < other else "above"
    return held, f"{amount(abs(found - other), quantity)} {side} {direction.words}"
