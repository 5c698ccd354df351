"""What an attack is, and what a rule is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from adv_lightning.attacks.config import describe, keyword_arguments
from adv_lightning.attacks.contexts import frozen_statistics

LossFn = Callable[[Tensor, Tensor], Tensor]
"""J: (logits, y) -> the loss, a scalar, the mean over the batch."""

Model = Callable[[Tensor], Tensor]
"""x -> logits."""


class Rule(Protocol):
    """A pure function (value, gradient) -> perturbed value: all that training needs of an attack."""

    needs_grad: bool

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        """Perturb `value`; `grad` is None where `needs_grad` is False."""
        ...


class Attack(nn.Module):
    """Turns (model, x, y) into adversarial inputs. Has no parameters and is bound to no model.

    Leaves the model as it was: no parameter's `.grad`, no BatchNorm buffer, no module's mode is touched.
    Works under `torch.no_grad` and `torch.inference_mode`. A subclass keeps every constructor argument as an
    attribute of the same name, so that `config` can describe it.
    """

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        """Craft adversarial inputs.

        Args:
            model: x -> logits.
            x: Inputs, floating point, [B, ...].
            y: Targets, [B, ...], as `loss_fn` takes them.
            loss_fn: (logits, y) -> mean loss over the batch, the J that is climbed.

        Returns:
            Inputs shaped as `x`, detached.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(model, x, y, *, loss_fn)")

    def config(self) -> dict[str, Any]:
        """Describe the attack as the `{class_path, init_args}` from which YAML builds it."""
        return describe(self)

    def extra_repr(self) -> str:
        return keyword_arguments(self)

    __call__: Callable[..., Tensor]  # nn.Module leaves it untyped


class SingleStepAttack(Attack):
    """An attack of one gradient and one rule. Training uses the rule alone; override `step`, not `forward`."""

    needs_grad = True
    differentiable = False
    """Whether training goes through the perturbation, by double backward."""

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        """Perturb `value` along the gradient of each example's own loss, [B, ...] as `value`."""
        raise NotImplementedError(f"{type(self).__name__} must define step(value, grad)")

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        grad = input_gradient(model, x, y, loss_fn=loss_fn).grad if self.needs_grad else None
        return self.step(x.detach(), grad)


class InputGradient(NamedTuple):
    """The clean pass of an attack, detached: logits [B, K], mean loss [], gradient of each example's loss."""

    logits: Tensor
    loss: Tensor
    grad: Tensor


def input_gradient(model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> InputGradient:
    """Gradient of each example's own loss with respect to its input: one forward and one backward pass.

    Raises:
        ValueError: `x` is not floating point, or the loss does not depend on it differentiably.
    """
    check_differentiable_input(x)
    with gradients_enabled(model):
        # A tensor made under inference mode cannot take part in autograd; a clone made here can.
        x, y = x.detach().clone().requires_grad_(), y.clone()
        logits = model(x)
        loss = loss_fn(logits, y)
        # A mean's small gradients would underflow in float16, and the sign of zero is zero.
        scale = max(1, min(len(x) * 2**10, 2**15)) if logits.dtype == torch.float16 else 1
        (grad,), _ = gradients(loss, [x], scale=scale)
    return InputGradient(logits.detach(), loss.detach(), per_example(grad, len(x), scale))


@contextmanager
def gradients_enabled(model: Model) -> Iterator[None]:
    """Leave no-grad and inference mode, and keep BatchNorm's running statistics as they are."""
    frozen = frozen_statistics(model) if isinstance(model, nn.Module) else nullcontext()
    with torch.inference_mode(False), torch.enable_grad(), frozen:
        yield


def gradients(
    loss: Tensor,
    values: Sequence[Tensor],
    params: Sequence[Tensor] = (),
    *,
    scale: Tensor | float = 1,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Differentiate `scale * loss` once, by perturbed values and by parameters; None where one is not reached.

    Raises:
        ValueError: the loss does not depend on one of the values differentiably.
    """
    if not loss.requires_grad:
        raise ValueError(_NOT_DIFFERENTIABLE)
    found = torch.autograd.grad(
        loss,
        [*values, *params],
        grad_outputs=scale.to(loss.dtype) if isinstance(scale, Tensor) else torch.full_like(loss, scale),
        retain_graph=retain_graph or create_graph,
        create_graph=create_graph,
        allow_unused=True,
    )
    reached = tuple(grad for grad in found[: len(values)] if grad is not None)
    if len(reached) < len(values):
        raise ValueError(_NOT_DIFFERENTIABLE)
    return reached, found[len(values) :]


_NOT_DIFFERENTIABLE = (
    "the loss does not depend on the perturbed value differentiably, so there is no gradient to follow: "
    "look for .detach(), .data, argmax, rounding or torch.no_grad() in the backbone or the loss, "
    "or use an attack that needs no gradient"
)


def per_example(grad: Tensor, batch_size: int, scale: Tensor | float = 1) -> Tensor:
    """Turn the gradient of `scale` times a mean loss into each example's own; what is not finite becomes zero."""
    if grad.dtype == torch.float16:
        grad = grad.float()
    return torch.nan_to_num(grad * (batch_size / scale), nan=0.0, posinf=0.0, neginf=0.0)


def check_differentiable_input(x: Tensor) -> None:
    """Raise ValueError unless `x` is floating point."""
    if not x.is_floating_point():
        raise ValueError(
            f"the input is {x.dtype}, which has no gradient: pass floating point pixels, for example x.float() / 255"
        )


def magnitude(name: str, value: float | str) -> float:
    """Read a size such as eps: a number >= 0, or a fraction written '8/255'.

    Raises:
        ValueError: `value` is negative, not finite, or not a number.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str):
            numerator, _, denominator = value.partition("/")
            number = float(numerator) / float(denominator or 1)
        else:
            number = float(value)
        if not (math.isfinite(number) and number >= 0):
            raise ValueError
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(
            f"{name}={value!r}: give a finite number >= 0, such as 0.25, or a fraction such as 8/255"
        ) from None
    return number


def check_bounds(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return `bounds` as a pair of floats, or None for unclipped.

    Raises:
        ValueError: not two numbers in increasing order.
    """
    if bounds is None:
        return None
    low, high = (float(bound) for bound in bounds)
    if not low < high:
        raise ValueError(
            f"bounds={bounds!r}: give (lowest, highest) pixel value, such as (0, 1), or None for unclipped"
        )
    return low, high


def clip(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Clamp `x` to `bounds`, or leave it as it is where they are None."""
    return x if bounds is None else x.clamp(*bounds)
