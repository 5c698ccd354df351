"""The fast gradient sign method towards a class."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_lightning.attacks.base import Attack, LossFn, Model, check_bounds, clip, input_gradient, magnitude


class TargetedFGSM(Attack):
    """One step towards a class: x - eps * sign(dJ(x, target)/dx).

    The step lowers the loss of `target`, whatever the true label, which is not looked at; an example that is of that
    class already is treated like any other, and usually becomes more clearly so. A pixel whose gradient is zero or
    not finite stays as it is. From a Gaussian sample it is the step that makes a fooling image (Goodfellow et al.
    2015, appendix A, figure 5).

    Args:
        eps: Size of the step in the max norm, in the units of the input: a number or a fraction such as 8/255.
        target: The class, counted from 0.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.

    Raises:
        ValueError: eps or target is negative, eps is not a number, or bounds are not increasing; when called, target
            is not below the number of classes, which is that of the logits, or 2 for a single logit.
    """

    def __init__(self, eps: float | str, target: int, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps = magnitude("eps", eps)
        if target < 0:
            raise ValueError(f"target={target}: give a class, counted from 0")
        self.target = target
        self.bounds = check_bounds(bounds)

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        def loss(logits: Tensor, y: Tensor) -> Tensor:
            # Before the loss sees it, which on a GPU would end in a device-side assertion.
            classes = 2 if logits.dim() == 1 else max(2, logits.shape[1])
            if self.target >= classes:
                raise ValueError(
                    f"target={self.target}: the model has {classes} classes, so give one from 0 to {classes - 1}"
                )
            return loss_fn(logits, y)

        targets = torch.full((len(x),), self.target, device=x.device)
        grad = input_gradient(model, x, targets, loss_fn=loss).grad
        return clip(torch.add(x.detach(), grad.sign().to(x.dtype), alpha=-self.eps), self.bounds)
