"""How often rubbish inputs are assigned to a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import UNIT, taken_for_a_class


class RubbishRate(Metric):
    """Share of inputs of no class that are assigned to one, in [0, 1]; NaN without inputs.

    An input is assigned to a class if its largest probability is above `threshold` (Goodfellow et al. 2015, appendix A,
    with 0.5: an error is "a positive prediction for any class").

    Args:
        num_classes: Number of classes, K.
        threshold: Probability in [0, 1].
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
        """Add inputs: their probabilities, [B, K]."""
        taken, confidence = taken_for_a_class(probabilities, self.threshold, len(self.taken))
        self.taken += taken
        self.confidence_sum += confidence
        self.total += len(probabilities)

    def compute(self) -> Tensor:
        """Return inputs assigned to a class / n."""
        return self.taken.sum() / self.total

    def classes(self) -> Tensor:
        """Return the share of each class among the errors, [K]; NaN without an error."""
        return self.taken / self.taken.sum()

    def confidence(self) -> Tensor:
        """Return the mean largest probability of the inputs assigned to a class; NaN without an error."""
        return self.confidence_sum / self.taken.sum() / UNIT
