"""A model as other libraries expect it: for images with pixels from 0 to 1."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from adv_lightning.attacks.gradients import Model, gradients, per_example


class UnitModel(nn.Module):
    """Turns images in [0, 1], [B, C, H, W], into a model's own inputs, and returns logits [B, K], K >= 2.

    The model is not a sub-module and its parameters get no gradient, so nothing that a library does to its target,
    such as setting the mode or going backward through it, reaches the model.

    Args:
        model: x -> logits.
        x: Inputs of the model, [B, ...], which give the shape, dtype and device.
        low: Input value that the library sees as 0.
        high: Input value that it sees as 1.
    """

    def __init__(self, model: Model, x: Tensor, low: float, high: float) -> None:
        super().__init__()
        self._model = (model,)  # a tuple keeps it from becoming a sub-module
        self._shape, self._dtype = x.shape[1:], x.dtype
        self._low, self._span = low, high - low
        # Libraries look for the device of the first parameter.
        self.where = nn.Parameter(torch.empty(0, device=x.device), requires_grad=False)
        self.eval()

    def inputs(self, images: Tensor) -> Tensor:
        """Return the model's inputs, [B, ...], for these images."""
        return (self._low + self._span * images).to(self._dtype).view(len(images), *self._shape)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits in the model's dtype. A single logit z becomes (0, z): its softmax is the sigmoid of z."""
        logits = self._model[0](self.inputs(images))
        if logits.dim() == 1 or logits.shape[1:] == (1,):
            z = logits.flatten()
            return torch.stack([torch.zeros_like(z), z], dim=1)
        if logits.dim() != 2:
            raise ValueError(f"the model returns logits of shape {list(logits.shape)}: other libraries need [B, K]")
        return logits

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and images.requires_grad:
            return cast(Tensor, _InputGradient.apply(images, self))
        with torch.no_grad():
            return self.logits(images).to(images.dtype)


class _InputGradient(torch.autograd.Function):
    """Differentiates with respect to the images alone. NaN and infinity in a gradient become zero."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: UnitModel) -> Tensor:
        with torch.enable_grad():
            ctx.images = images.detach().clone().requires_grad_()
            ctx.logits = model.logits(ctx.images)
        return cast(Tensor, ctx.logits.detach().to(images.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        # Small gradients would underflow in float16.
        scale = 2**10 / grad.abs().max().clamp(min=2**-20) if ctx.logits.dtype == torch.float16 else 1.0
        with torch.enable_grad():
            product = (ctx.logits.to(grad.dtype) * grad).sum()
            # A library may differentiate again, for another logit.
            (found,), _ = gradients(product, [ctx.images], scale=scale, retain_graph=True)
        return per_example(found, 1, scale).to(grad.dtype), None


def as_images(x: Tensor) -> Tensor:
    """Return inputs [B, ...] as [B, C, H, W]: three dimensions get one channel, others become one row of pixels."""
    if x.dim() == 4:
        return x
    return x.unsqueeze(1) if x.dim() == 3 else x.reshape(len(x), 1, 1, -1)
