"""The gradient of the loss with respect to the input, in any grad mode and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adv_lightning.attacks.model_mode import kept_buffers, private_copy

LossFn = Callable[[Tensor, Tensor], Tensor]
"""J: (logits, y) -> the loss, a scalar, the mean over the batch."""

Model = Callable[[Tensor], Tensor]
"""x -> logits."""


class InputGradient(NamedTuple):
    """The clean pass of an attack, detached: logits [B, K], mean loss [], gradient of each example's loss."""

    logits: Tensor
    loss: Tensor
    grad: Tensor


def input_gradient(model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> InputGradient:
    """Gradient of each example's own loss with respect to its input: one forward and one backward pass.

    The model gets a copy of the input, so it may work in place.

    Raises:
        ValueError: `x` is not floating point, or the loss does not depend on it differentiably.
    """
    check_differentiable_input(x)
    with gradients_enabled(model):
        # A tensor made under inference mode cannot take part in autograd; a clone made here can.
        x, y = x.detach().clone().requires_grad_(), y.clone()
        logits = model(private_copy(model, x))
        loss = loss_fn(logits.clone(), y)  # which may work in place
        # A mean's small gradients would underflow in float16, and the sign of zero is zero.
        scale = max(1, min(len(x) * 2**10, 2**15)) if logits.dtype == torch.float16 else 1
        (grad,), _ = gradients(loss, [x], scale=scale)
    return InputGradient(logits.detach(), loss.detach(), per_example(grad, len(x), scale))


@contextmanager
def gradients_enabled(model: Model) -> Iterator[None]:
    """Leave no-grad and inference mode, and keep every buffer of the model as it was."""
    kept = kept_buffers(model) if isinstance(model, nn.Module) else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), kept:
        yield


def gradients(
    loss: Tensor,
    values: Sequence[Tensor],
    reached: Sequence[Tensor] = (),
    *,
    scale: Tensor | float = 1,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Differentiate `scale * loss` once, with respect to perturbed values and to leaves that it reaches.

    Returns:
        The gradients of the values, and those of the leaves.

    Raises:
        ValueError: the loss is no scalar, or does not depend on one of the values differentiably.
    """
    check_scalar(loss)
    if not loss.requires_grad:
        raise ValueError(_NOT_DIFFERENTIABLE)
    found = torch.autograd.grad(
        loss,
        [*values, *reached],
        grad_outputs=scale.to(loss.dtype) if isinstance(scale, Tensor) else torch.full_like(loss, scale),
        retain_graph=retain_graph or create_graph,
        create_graph=create_graph,
        allow_unused=True,
    )
    climbed = found[: len(values)]
    if any(grad is None for grad in climbed):
        raise ValueError(_NOT_DIFFERENTIABLE)
    return climbed, found[len(values) :]


_NOT_DIFFERENTIABLE = (
    "the loss does not depend on the perturbed value differentiably, so there is no gradient to follow: "
    "look for .detach(), .data, argmax, rounding or torch.no_grad() in the backbone or the loss, "
    "or use an attack that needs no gradient"
)


def per_example(grad: Tensor, batch_size: int, scale: Tensor | float = 1) -> Tensor:
    """Turn the gradient of `scale` times a mean loss into each example's own; NaN and infinity become zero."""
    if grad.dtype == torch.float16:
        grad = grad.float()
    return torch.nan_to_num(grad * (batch_size / scale), nan=0.0, posinf=0.0, neginf=0.0)


def check_scalar(loss: Tensor) -> Tensor:
    """Return the loss of a batch, or raise TypeError or ValueError if it is not a tensor of one number."""
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"the loss is a {type(loss).__name__}, expected a tensor, the mean over the batch: return it without "
            ".item(), and nothing beside it"
        )
    if loss.dim():
        raise ValueError(
            f"the loss has the shape {list(loss.shape)}, expected a scalar, the mean over the batch: use "
            'reduction="mean", or return loss.mean()'
        )
    return loss


def check_differentiable_input(x: Tensor) -> None:
    """Raise ValueError unless `x` is floating point."""
    if not x.is_floating_point():
        raise ValueError(
            f"the input is {x.dtype}, which has no gradient: pass floating point pixels, for example x.float() / 255"
        )
