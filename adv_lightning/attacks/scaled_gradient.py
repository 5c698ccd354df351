"""Addition of the scaled gradient."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from adv_lightning.attacks.argument_checks import check_bounds, clip, magnitude
from adv_lightning.attacks.base import SingleStepAttack

Norm = Literal["l2", "none"]


class ScaledGradient(SingleStepAttack):
    """Addition of the scaled gradient: x + eps * g / |g|, or x + eps * g (Goodfellow et al. 2015, section 6).

    g is the gradient of each example's own loss and |g| its Euclidean norm. An example whose gradient is zero stays
    unchanged; NaN and infinity in a gradient count as zero.

    Args:
        eps: Size of the step: a number or a fraction. With norm "l2" it is the Euclidean length of the perturbation,
            in the units of the input; with "none" it multiplies the gradient.
        norm: "l2" divides each example's gradient by its Euclidean norm, "none" does not.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        differentiable: Differentiate through the perturbation in training, so that learning takes the adversary's
            reaction into account. This costs a double backward pass.

    Raises:
        ValueError: eps is negative or not a number, `norm` is neither word, or `bounds` do not increase.
    """

    def __init__(
        self,
        eps: float | str,
        norm: Norm = "l2",
        bounds: tuple[float, float] | None = None,
        differentiable: bool = False,
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(f"norm={norm!r}: give one of {', '.join(get_args(Norm))}")
        self.eps = magnitude("eps", eps)
        self.norm = norm
        self.bounds = check_bounds(bounds)
        self.differentiable = differentiable

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        direction = unit(rows(grad)).view_as(grad) if self.norm == "l2" else grad
        return clip(torch.add(value, direction.to(value.dtype), alpha=self.eps), self.bounds)


def rows(values: Tensor) -> Tensor:
    """Return each example as a row, [B, n], in at least float32."""
    return values.unsqueeze(1).flatten(1).to(torch.promote_types(values.dtype, torch.float32))


def unit(vectors: Tensor) -> Tensor:
    """Divide each row of [B, n] by its Euclidean norm; a row of zeros stays zero, and so does its gradient.

    Twice differentiable everywhere.
    """
    largest = vectors.detach().abs().amax(dim=1, keepdim=True)
    nonzero = largest > 0
    # Scaling the largest element to 1 keeps squares from under- or overflowing; the result does not depend on it.
    scaled = torch.where(nonzero, vectors, 0) / torch.where(nonzero, largest, 1)
    squares = scaled.square().sum(dim=1, keepdim=True)
    return scaled / torch.where(nonzero, squares, 1).sqrt()
