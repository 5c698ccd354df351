"""A gradient that is known already, replayed when its loss is differentiated."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor


class ReplayGradient(torch.autograd.Function):
    """The sum of a loss and of a known number whose gradient by the parameters is known as well.

    `apply(loss, known, scale, grads, *params)` returns `loss + known`. Differentiating it hands each parameter its part
    of `grads`, times the incoming gradient and divided by `scale` (None: 1), without another pass through the network.
    It does so before `loss` is differentiated, so that each gradient of `loss` is added and let go of as it arrives.
    """

    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, known: Tensor, scale: Tensor | None, grads: list[Tensor], *params: Tensor
    ) -> Tensor:
        ctx.scale, ctx.grads = scale, grads
        return loss + known

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the clean gradient was kept as numbers, which have no second derivative: for create_graph=True, pass "
                "replay=False to adversarial_objective"
            )
        if ctx.grads is None:
            raise RuntimeError(
                "the clean gradient was replayed already: compute the objective anew to differentiate again"
            )
        # One factor for both, so that a large scale never meets a gradient twice.
        factor = grad_output if ctx.scale is None else grad_output / ctx.scale
        # Let go of them, so that the engine may add to them in place.
        grads, ctx.grads = ctx.grads, None
        if factor.device.type == "cpu" and factor == 1:  # on another device asking would wait for it
            return grad_output, None, None, None, *grads
        return grad_output, None, None, None, *torch._foreach_mul(grads, factor)


def cut_loose(grads: list[Tensor]) -> list[Tensor]:
    """Return the gradients such that autograd adds to them in place wherever nothing else holds their memory."""
    # That of a linear layer is a transpose, and a view holds on to its base: autograd would take the memory for
    # shared, and make a third set of gradients as the sum of two.
    bases = [g if g._base is None else g._base for g in grads]
    holders = Counter(map(id, bases))
    return [g.detach() if base is not g and holders[id(base)] == 1 else g for g, base in zip(grads, bases, strict=True)]
