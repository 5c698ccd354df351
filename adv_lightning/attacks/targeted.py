"""The fast gradient sign method towards a target class."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_lightning.attacks.argument_checks import check_bounds, clip, magnitude
from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.gradients import LossFn, Model, input_gradient


class TargetedFGSM(Attack):
    """One step towards a target class: x - eps * sign(dJ(x, target)/dx).

    The step lowers the loss of `target` and ignores the true label: an example that already belongs to that class is
    treated like any other. A pixel whose gradient is zero, NaN or infinite stays unchanged. Taken from a Gaussian
    sample, this step makes a fooling image (Goodfellow et al. 2015, appendix A, figure 5).

    Args:
        eps: Size of the step in the max norm, in the units of the input: a number or a fraction such as 8/255.
        target: The class, counted from 0.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.

    Raises:
        ValueError: eps or target is negative, eps is not a number, or `bounds` do not increase; when called, `target`
            is not below the number of classes, which is the number of logits, or 2 for a single logit.
    """

    steps = 1
    uses_label = False

    def __init__(self, eps: float | str, target: int, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps = magnitude("eps", eps)
        if target < 0:
            raise ValueError(f"target={target}: give a class >= 0; classes are counted from 0")
        self.target = target
        self.bounds = check_bounds(bounds)

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        def loss(logits: Tensor, y: Tensor) -> Tensor:
            # Checked before the loss sees the target, which on a GPU would end in a device-side assertion.
            classes = 2 if logits.dim() == 1 else max(2, logits.shape[1])
            if self.target >= classes:
                raise ValueError(
                    f"target={self.target}: the model has {classes} classes, so give one from 0 to {classes - 1}"
                )
            return loss_fn(logits, y)

        targets = torch.full((len(x),), self.target, device=x.device)
        grad = input_gradient(model, x, targets, loss_fn=loss).grad
        return clip(torch.add(x.detach(), grad.sign().to(x.dtype), alpha=-self.eps), self.bounds)
