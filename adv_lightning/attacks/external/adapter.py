"""A model as other libraries want it: images with pixels from 0 to 1."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import Model, gradients, per_example


class UnitModel(nn.Module):
    """Shows images in [0, 1], [B, C, H, W], to a model of other inputs, and gives logits [B, K], K >= 2.

    The model is no sub-module, and its parameters get no gradient: whatever a library does to what it attacks, such
    as setting its mode or going backward through it, does not reach the model.

    Args:
        model: x -> logits.
        x: Inputs of the model, [B, ...]; shape, dtype and device are taken from them.
        low: What is 0 to the library, in the units of the model's input.
        high: What is 1.
    """

    def __init__(self, model: Model, x: Tensor, low: float, high: float) -> None:
        super().__init__()
        self._model = (model,)  # a tuple hides it from torch
        self._shape, self._dtype = x.shape[1:], x.dtype
        self._low, self._span = low, high - low
        # Libraries look for the device of the first parameter.
        self.where = nn.Parameter(torch.empty(0, device=x.device), requires_grad=False)
        self.eval()

    def inputs(self, images: Tensor) -> Tensor:
        """Return what the model is shown, [B, ...]."""
        return (self._low + self._span * images).to(self._dtype).view(len(images), *self._shape)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits in the model's own dtype; a single one z becomes (0, z), whose softmax is its sigmoid."""
        logits = self._model[0](self.inputs(images))
        if logits.dim() == 1 or logits.shape[1:] == (1,):
            z = logits.flatten()
            return torch.stack([torch.zeros_like(z), z], dim=1)
        if logits.dim() != 2:
            raise ValueError(f"logits of shape {list(logits.shape)} are no [B, K], which is all that libraries attack")
        return logits

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and images.requires_grad:
            return cast(Tensor, _InputGradient.apply(images, self))
        with torch.no_grad():
            return self.logits(images).to(images.dtype)


class _InputGradient(torch.autograd.Function):
    """Differentiates by the images alone. What is not finite in a gradient becomes zero."""

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
            # A library may differentiate once more, by another logit.
            (found,), _ = gradients(product, [ctx.images], scale=scale, retain_graph=True)
        return per_example(found, 1, scale).to(grad.dtype), None


def as_images(x: Tensor) -> Tensor:
    """Return inputs [B, ...] as [B, C, H, W]: of one channel where there are three dimensions, else in a row."""
    if x.dim() == 4:
        return x
    return x.unsqueeze(1) if x.dim() == 3 else x.reshape(len(x), 1, 1, -1)
