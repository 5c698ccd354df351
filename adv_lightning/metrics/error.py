"""Error rate, and confidence on mistakes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

_UNIT = 2**24  # the precision of float32


class ErrorRate(Metric):
    """Share of examples whose predicted class is wrong, in [0, 1]; NaN before the first example."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    errors: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("errors", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, y: Tensor) -> None:
        """Count predicted classes, int64 [B], that differ from targets, int64 [B]."""
        self.errors += (predicted != y).sum()
        self.total += y.numel()

    def compute(self) -> Tensor:
        """Return errors / n."""
        return self.errors / self.total


class MistakeConfidence(Metric):
    """Mean over the misclassified examples of the largest probability, in [0, 1]; NaN where there is no mistake.

    The paper's "average confidence on a misclassified example" (Goodfellow et al. 2015, sections 4 and 6).
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    confidence: Tensor
    mistakes: Tensor

    def __init__(self) -> None:
        super().__init__()
        # In fixed point, so that the sum is exact in any order and on devices without float64.
        self.add_state("confidence", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("mistakes", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, predicted: Tensor, y: Tensor) -> None:
        """Add the largest of the probabilities, [B, K], of each example whose class, int64 [B], is not y."""
        wrong = predicted != y
        units = (probabilities.amax(dim=-1).float() * _UNIT).round().long()
        self.confidence += (units * wrong).sum()
        self.mistakes += wrong.sum()

    def compute(self) -> Tensor:
        """Return summed confidence / number of mistakes."""
        return self.confidence / self.mistakes / _UNIT
