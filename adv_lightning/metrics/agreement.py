"""Whether two models make the same mistakes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import agreement


class Agreement(Metric):
    """Shares of examples on which two models, a and b, predict the same class (Goodfellow et al. 2015, section 8).

    The three shares, [3] in [0, 1], are among all examples, among those on which a errs, and among those on which both
    err; NaN where there are none. The states `equal` and `total`, int64 [3], are the counts behind them, for intervals.
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
        """Count the classes that both predict for the same examples, int64 [B] each, with targets, int64 [B]."""
        equal, total = agreement(a, b, y)
        self.equal += equal
        self.total += total

    def compute(self) -> Tensor:
        """Return equal predictions / examples: of all, where a errs, where both err."""
        return self.equal / self.total
