"""Rotation towards the gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adv_lightning.attacks.argument_checks import magnitude
from adv_lightning.attacks.base import SingleStepAttack
from adv_lightning.attacks.scaled_gradient import rows, unit


class Rotation(SingleStepAttack):
    """Turns each example towards its gradient by `angle`, keeping its Euclidean norm.

    The result is |x| (cos(angle) x/|x| + sin(angle) u), where u is the unit vector along the component of the gradient
    that is orthogonal to x (Goodfellow et al. 2015, sections 4 and 6: rotating x, or a hidden layer, by a small angle
    in the direction of the gradient). An example stays unchanged if x or its gradient is zero, or if the two are
    parallel up to rounding: they then span no plane.

    Args:
        angle: In radians, from 0 to pi.
        differentiable: Differentiate through the perturbation in training, so that learning takes the adversary's
            reaction into account. This costs a double backward pass.

    Raises:
        ValueError: angle lies outside [0, pi] or is not a number.
    """

    def __init__(self, angle: float | str, differentiable: bool = False) -> None:
        super().__init__()
        self.angle = magnitude("angle", angle)
        if self.angle > math.pi:
            raise ValueError(f"angle={angle!r}: give radians from 0 to pi = {math.pi}, such as 0.1")
        self.differentiable = differentiable

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        x = rows(value)
        along, towards = unit(x), unit(rows(grad).to(x.dtype))
        across = _orthogonal(towards, along)
        moves = across.detach().norm(dim=1, keepdim=True) > 100 * torch.finfo(x.dtype).eps
        # A second projection: for a nearly parallel gradient, rounding leaves a component along x after the first.
        across = unit(_orthogonal(unit(across), along))
        length = _dot(x, along)
        turned = math.cos(self.angle) * x + math.sin(self.angle) * length * across
        return torch.where(moves, turned, x).to(value.dtype).view_as(value)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _orthogonal(vectors: Tensor, axes: Tensor) -> Tensor:
    """Remove each row's component along a unit axis."""
    return vectors - _dot(vectors, axes) * axes
