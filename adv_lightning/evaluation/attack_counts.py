"""All counts of the network's predictions under one attack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from adv_lightning.attacks import Attack
from adv_lightning.evaluation.row_threat_model import described
from adv_lightning.losses import Loss, predicted_classes
from adv_lightning.metrics import (
    ConfidenceHistogram,
    ErrorRate,
    MistakeClasses,
    MistakeConfidence,
    WithoutClass,
    WrongClassProbability,
    wilson_interval,
)


class AttackCounts(nn.Module):
    """Error, confidence on mistakes, probability of the wrong classes, and the classes predicted by mistake.

    Args:
        num_classes: Number of classes, K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.error = ErrorRate()
        self.confidence = MistakeConfidence()
        self.wrong = WrongClassProbability()
        self.classes = MistakeClasses(num_classes)
        self.histogram = ConfidenceHistogram()
        self.not_finite = WithoutClass()

    def update(self, logits: Tensor, y: Tensor, loss_fn: Loss) -> Tensor:
        """Count logits, [B, ...], with targets, int64 [B]; return which examples are misclassified, bool [B]."""
        predicted, probabilities = predicted_classes(loss_fn, logits), loss_fn.probabilities(logits)
        self.error.update(predicted, y)
        self.confidence.update(probabilities, predicted, y)
        self.wrong.update(probabilities, predicted, y)
        self.classes.update(predicted, y)
        self.histogram.update(probabilities, predicted, y)
        self.not_finite.update(predicted)
        return predicted != y

    def row(self, name: str, attack: Attack | None) -> dict[str, Any]:
        """Return the results of all processes as a row of the record, with the attack's threat model.

        `not_finite` is there only if there are logits that are not finite.
        """
        strange = int(self.not_finite.compute())
        return {
            "name": name,
            **described(attack),
            **rate(self.error),
            "confidence_on_mistakes": _known(self.confidence.compute()),
            "wrong_class_probability": _known(self.wrong.compute()),
            "mistakes_by_class": self.classes.compute().tolist(),
            **({"not_finite": strange} if strange else {}),
        }


def not_finite_named(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each row with logits that are not finite."""
    return [
        f"{row['name']}: the logits of {row['not_finite']} of {row['n']} examples are not finite. They count as "
        "mistakes, without confidence and class."
        for row in rows
        if row.get("not_finite")
    ]


def rate(error: ErrorRate) -> dict[str, Any]:
    """Return the error over all processes, its 95 % interval (Wilson) and n."""
    errors, n = counted(error)
    return {"error": errors / n if n else math.nan, "interval": list(wilson_interval(errors, n)), "n": n}


def counted(error: ErrorRate) -> tuple[int, int]:
    """Return errors and n over all processes."""
    with error.sync_context():
        return int(error.errors), int(error.total)


def number_of_classes(logits: Tensor, loss_fn: Loss) -> int:
    """Return K, the number of classes: 2 for a single logit."""
    return int(loss_fn.probabilities(logits.detach()[:1]).shape[1])


def _known(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()
