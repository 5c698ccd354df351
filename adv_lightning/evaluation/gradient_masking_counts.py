"""The checks for masked gradients that rest on counts of examples and pixels rather than on rows of results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adv_lightning.evaluation.dead_pixels import DeadPixels
from adv_lightning.evaluation.missed_examples import MissedExamples
from adv_lightning.metrics import wilson_interval

Outcome = Literal["passed", "masked", "caution", "not run"]

FEW_ZERO = 0.05
FEW_MISSED = 0.02
MISSED_OF_FOUND = 0.2
PASSED_OVER_OF_FOUND = 1 / 3
FEW_DEAD = 0.05


@dataclass(frozen=True)
class Check:
    """A check's outcome, and one sentence with the figures that it rests on, or which rows are missing."""

    name: str
    outcome: Outcome
    words: str


def zero_gradients_check(counted: tuple[int, int] | None) -> Check:
    """Judge how many examples, of how many, have no gradient at all."""
    name = "zero gradients"
    if counted is None or counted[1] == 0:
        return Check(name, "not run", "Examples with an input gradient of zero were not counted.")
    masked, figure = share(counted, FEW_ZERO)
    words = (
        f"The share of inputs without a gradient is {'' if masked else 'not clearly '}above {FEW_ZERO:.0%}: {figure}."
    )
    return Check(name, "masked" if masked else "passed", words)


def missed_examples_check(counted: MissedExamples | None) -> Check:
    """Judge how many examples only attacks without the gradient fool."""
    name = "missed examples"
    if counted is None or counted.n == 0:
        missing = "No attack without the network's gradient, such as Square, shares a ball with an iterated attack."
        return Check(name, "not run", missing)
    masked, cautious = (
        share((count, counted.n), FEW_MISSED)[0] and share((count, counted.found), of_found)[0]
        for count, of_found in ((counted.missed, MISSED_OF_FOUND), (counted.passed_over, PASSED_OVER_OF_FOUND))
    )
    found = f"an attack without the gradient fools {counted.found} of {counted.n} inputs"
    along = f"those along the gradient miss {counted.passed_over} of them"
    again = f"{counted.missed} even with restarts on the margin"
    if masked:
        return Check(name, "masked", f"Clearly more than {MISSED_OF_FOUND:.0%} are missed: {found}, {along}, {again}.")
    if cautious:
        words = (
            f"Only restarts on the margin find more than {1 - PASSED_OVER_OF_FOUND:.0%}, so do not trust other attacks"
        )
        return Check(name, "caution", f"{words}: {found}, {along}, {again}.")
    return Check(name, "passed", f"Attacks along the gradient find most of what exists: {found}, {along}, {again}.")


def dead_pixels_check(found: DeadPixels | None) -> Check:
    """Judge how many pixels have no gradient although the network reacts to them."""
    name = "dead pixels"
    if found is None:
        return Check(name, "not run", "Pixels without a gradient were not counted, or too few examples have one.")
    masked = found.share > FEW_DEAD
    words = (
        f"The share of pixels that the gradient does not reach although the logits react to them is "
        f"{'' if masked else 'not '}above {FEW_DEAD:.0%}: {found.share:.2%} ({found.dead} of {found.pixels} without a "
        f"gradient, and a reaction to {found.reacting} of {found.probed} tried)."
    )
    return Check(name, "masked" if masked else "passed", words)


def share(counted: tuple[int, int], few: float) -> tuple[bool, str]:
    """Return whether a share is clearly above `few`, and its figures."""
    (count, n), (low, high) = counted, wilson_interval(*counted)
    return low > few, f"{count / n:.2%} [{low:.2%}, {high:.2%}], n={n}"
