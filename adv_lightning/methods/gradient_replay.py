"""Replay of a gradient that is already known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ReplayGradient(torch.autograd.Function):
    """The sum of a loss and of a number whose gradient with respect to the parameters is already known.

    `apply(loss, known, scale, grads, *params)` returns `loss + known`. Its backward pass gives each parameter its
    entry of `grads`, times the incoming gradient and divided by `scale` (None: 1), without another pass through the
    network. This happens before `loss` is differentiated, so each gradient of `loss` is added in place and freed as it
    arrives.
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
                "the clean gradient has no graph, so it cannot be differentiated again: pass replay=False to "
                "adversarial_objective to use create_graph=True"
            )
        if ctx.grads is None:
            raise RuntimeError(
                "the clean gradient was already replayed: compute the objective again before another backward pass"
            )
        # One factor, so that a gradient is never multiplied by a large scale before it is divided by it.
        factor = grad_output if ctx.scale is None else grad_output / ctx.scale
        # Drop the references, so that the engine can add to the gradients in place.
        grads, ctx.grads = ctx.grads, None
        if factor.device.type == "cpu" and factor == 1:  # comparing on another device would wait for it
            return grad_output, None, None, None, *grads
        return grad_output, None, None, None, *torch._foreach_mul(grads, factor)


def leaves(loss: Tensor) -> list[Tensor]:
    """Return the tensors that the gradient of a loss ends in: parameters, wherever they are kept.

    What the loss does not reach is not among them, so DDP finds unused parameters.
    """
    found: list[Tensor] = []
    waiting = [loss.grad_fn]
    seen = {loss.grad_fn}
    while waiting:
        node = waiting.pop()
        for child, _ in () if node is None else node.next_functions:
            if child in seen:
                continue
            seen.add(child)
            if child is not None and child.name() == "torch::autograd::AccumulateGrad":
                found.append(child.variable)  # type: ignore[attr-defined]  # of this kind of node alone
            else:
                waiting.append(child)
    return found


def cut_loose(grads: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients without their views, so that autograd adds to them in place where nothing shares memory."""
    # The gradient of a linear layer is a transpose. A view keeps its base alive, so autograd would treat the memory as
    # shared and allocate a third set of gradients for the sum of two.
    bases = [g if g._base is None else g._base for g in grads]
    holders = Counter(map(id, bases))
    return [g.detach() if base is not g and holders[id(base)] == 1 else g for g, base in zip(grads, bases, strict=True)]
