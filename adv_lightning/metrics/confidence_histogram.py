"""Confidence of right and of wrong predictions."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import confidence_histogram


class ConfidenceHistogram(Metric):
    """Histogram over [0, 1] of the largest probability, int64 [2, bins]: right predictions, then wrong ones.

    Bin k holds values from k / bins to below (k + 1) / bins; the last bin also holds 1.

    Args:
        bins: Number of bins of equal width.

    Raises:
        ValueError: bins is below 1.
    """

    is_differentiable = False
    full_state_update = False
    counts: Tensor

    def __init__(self, bins: int = 20) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"bins={bins!r}: give at least 1")
        self.bins = bins
        self.add_state("counts", default=torch.zeros(2, bins, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, predicted: Tensor, y: Tensor) -> None:
        """Add examples: probabilities, [B, K], predicted classes, int64 [B], and targets, int64 [B]."""
        self.counts += confidence_histogram(probabilities, predicted, y, self.bins)

    def compute(self) -> Tensor:
        """Return the counts, int64 [2, bins]."""
        return self.counts
