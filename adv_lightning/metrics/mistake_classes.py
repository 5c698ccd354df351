"""Which classes are predicted for misclassified examples."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import mistake_classes


class MistakeClasses(Metric):
    """Histogram of the predicted classes of the misclassified examples, int64 [K].

    Args:
        num_classes: Number of classes, K.

    Raises:
        ValueError: num_classes is below 2.
    """

    is_differentiable = False
    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes!r}: give at least 2 (a single logit has two classes)")
        self.num_classes = num_classes
        self.add_state("counts", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, y: Tensor) -> None:
        """Add examples: predicted classes, int64 [B], and targets, int64 [B]."""
        self.counts += mistake_classes(predicted, y, self.num_classes)

    def compute(self) -> Tensor:
        """Return how often each class was predicted by mistake."""
        return self.counts
