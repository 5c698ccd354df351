"""Whether two models make the same mistakes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import agreement


class Agreement(Metric):
    """Shares of examples on which two models, a and b, predict the same class (Goodfellow et al. 2015, section 8).

    There are three shares, [3] in [0, 1]: among all examples, among those that a gets wrong, and among those that both
    get wrong. A share of no examples is NaN. The states `equal` and `total`, int64 [3], hold the counts, for confidence
    intervals.
    """

    is_differentiable = False
    full_state_update = False
    equal: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("equal", default=torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", default=torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, a: Tensor, b: Tensor, y: Tensor) -> None:
        """Add examples: the predicted classes of both models, int64 [B] each, and targets, int64 [B]."""
        equal, total = agreement(a, b, y)
        self.equal += equal
        self.total += total

    def compute(self) -> Tensor:
        """Return equal predictions / examples: among all, where a is wrong, where both are wrong."""
        return self.equal / self.total
