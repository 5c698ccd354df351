"""The fast gradient sign method."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_lightning.attacks.argument_checks import check_bounds, clip, magnitude
from adv_lightning.attacks.base import SingleStepAttack


class FGSM(SingleStepAttack):
    """Fast gradient sign method: x + eps * sign(dJ/dx) (Goodfellow et al. 2015, section 4).

    A pixel whose gradient is zero, NaN or infinite stays unchanged.

    Args:
        eps: Size of the step in the max norm, in the units of the input: a number or a fraction such as 8/255.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped, as in the paper.

    Raises:
        ValueError: eps is negative or not a number, or `bounds` do not increase.
    """

    def __init__(self, eps: float | str, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps = magnitude("eps", eps)
        self.bounds = check_bounds(bounds)

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return clip(torch.add(value, grad.sign().to(value.dtype), alpha=self.eps), self.bounds)
