"""How often rubbish is taken for a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import UNIT, taken_for_a_class


class RubbishRate(Metric):
    """Share of inputs of no class that are taken for one, in [0, 1]; NaN before the first.

    An input is taken for a class if the largest of its probabilities is above `threshold` (Goodfellow et al. 2015,
    appendix A, with 0.5: an error is "a positive prediction for any class").

    Args:
        num_classes: Number of classes, K.
        threshold: In [0, 1].
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    taken: Tensor
    confidence_sum: Tensor
    total: Tensor

    def __init__(self, num_classes: int, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold
        self.add_state("taken", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidence_sum", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor) -> None:
        """Count probabilities, [B, K]."""
        taken, confidence = taken_for_a_class(probabilities, self.threshold, len(self.taken))
        self.taken += taken
        self.confidence_sum += confidence
        self.total += len(probabilities)

    def compute(self) -> Tensor:
        """Return inputs taken for a class / n."""
        return self.taken.sum() / self.total

    def classes(self) -> Tensor:
        """Return for each class its part in the errors, [K]; NaN where there is no error."""
        return self.taken / self.taken.sum()

    def confidence(self) -> Tensor:
        """Return the mean largest probability of the inputs taken for a class; NaN where there is none."""
        return self.confidence_sum / self.taken.sum() / UNIT
