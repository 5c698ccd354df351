"""Perturbation sites: the places where the second forward pass is perturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import Rule
from adv_lightning.attacks.gradients import check_differentiable_input
from adv_lightning.attacks.model_mode import runs_under_checkpoint
from adv_lightning.attacks.scaled_gradient import rows


class PerturbationSite:
    """One place and the rule that acts there: the input, or the output of a layer.

    A subclass defines two context managers, one around each forward pass. Each takes x and yields what the model
    sees in its place. A site inside the network registers its hooks there and removes them afterwards.

    Args:
        rule: What perturbs the value. None: the site does nothing.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule
        self.value: Tensor | None = None
        self.used = False
        """Whether any pass was perturbed here."""

    def __repr__(self) -> str:
        return type(self).__name__

    @property
    def needs_grad(self) -> bool:
        """Whether the rule follows a gradient."""
        return self.rule is not None and self.rule.needs_grad

    @property
    def differentiable(self) -> bool:
        """Whether training differentiates through the perturbation."""
        return getattr(self.rule, "differentiable", False)

    @contextmanager
    def recorded(self, x: Tensor) -> Iterator[Tensor]:
        """Around the clean pass: store in `value` the tensor whose gradient is needed."""
        raise NotImplementedError(f"{type(self).__name__} must define recorded(x)")
        yield x

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        """Around the second pass: apply the rule along `direction`, each example's own gradient at the clean value.

        A site inside the network applies the rule to the value of this pass, not to the recorded one. The gradient
        then flows through it to the layers below.
        """
        raise NotImplementedError(f"{type(self).__name__} must define perturbed(x, direction)")
        yield x

    def take(self) -> Tensor:
        """Return the recorded value and forget it.

        Raises:
            RuntimeError: the clean pass recorded none.
        """
        value, self.value = self.value, None
        if value is None:
            raise RuntimeError(f"the forward pass did not reach the perturbation site {self!r}")
        return value


class InputSite(PerturbationSite):
    """The input of the network."""

    @contextmanager
    def recorded(self, x: Tensor) -> Iterator[Tensor]:
        check_differentiable_input(x)
        self.value = x if x.requires_grad else x.detach().requires_grad_()
        yield self.value

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        assert self.rule is not None
        yield self.rule.step(x if x.requires_grad else x.detach(), direction)


class LayerSite(PerturbationSite):
    """The output of a layer: one tensor, [B, ...], from one call in each pass.

    Args:
        layer: The layer, a module of the network.
        name: The layer's name in errors.
        rule: As for PerturbationSite.
        relative: Measure the perturbation in units of each example's root mean square output. The output is divided
            by it, perturbed, and multiplied by it again; the root mean square counts as a constant. FGSM's
            perturbation then has eps times the Euclidean norm of the example's output.

    Raises:
        ValueError: in a pass, the layer does not return one floating-point tensor [B, ...], runs more than once, or
            runs under torch.utils.checkpoint or torch.no_grad.
    """

    def __init__(self, layer: nn.Module, name: str, rule: Rule | None = None, *, relative: bool = False) -> None:
        super().__init__(rule)
        self.layer = layer
        self.name = name
        self.relative = relative

    def __repr__(self) -> str:
        return f"layer {self.name!r}"

    @contextmanager
    def recorded(self, x: Tensor) -> Iterator[Tensor]:
        self.value = None

        def record(output: Tensor) -> Tensor:
            # Below this layer all may be frozen; then the output does not require a gradient yet.
            self.value = output if output.requires_grad else output.detach().requires_grad_()
            # The next layer may work in place and would overwrite the recorded value.
            return self.value.clone()

        with self._replaced(record, len(x)):
            yield x

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        def perturb(output: Tensor) -> Tensor:
            assert self.rule is not None
            if not self.relative:
                return self.rule.step(output, direction)
            # In float32 at least: squares overflow in half precision.
            size = rows(output.detach()).square().mean(dim=1).sqrt().view(-1, *[1] * (output.dim() - 1))
            unit = torch.where(size > 0, size, 1)
            moved = unit * self.rule.step(output / unit, direction)
            return torch.where(size > 0, moved, output).to(output.dtype)

        self.used = True
        with self._replaced(perturb, len(x)):
            yield x

    @contextmanager
    def _replaced(self, change: Callable[[Tensor], Tensor], batch_size: int) -> Iterator[None]:
        """Check the layer's output and pass it through `change`."""
        calls = 0

        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            nonlocal calls
            calls += 1
            value = single_tensor(output, self)
            if calls > 1:
                raise ValueError(
                    f"{self!r} runs more than once in a forward pass, so it has more than one output: perturb a layer "
                    "that runs once"
                )
            if value.shape[:1] != (batch_size,):
                raise ValueError(
                    f"{self!r} returns a tensor of shape {list(value.shape)} for a batch of {batch_size}, so its first "
                    f"dimension is not the batch: perturb a layer that returns [{batch_size}, ...]"
                )
            if runs_under_checkpoint():
                raise ValueError(
                    f"{self!r} runs under torch.utils.checkpoint, which would recompute it without the perturbation, "
                    "or under torch.no_grad: perturb a layer outside of them"
                )
            return change(value)

        handle = self.layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def single_tensor(output: Any, layer: Any) -> Tensor:
    """Return a layer's output if it is one floating-point tensor.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = f"{output.dtype} tensor" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{layer!r} returns a {kind}: only a single floating-point tensor can be perturbed or measured"
        )
    return output


class Sites:
    """The places that a training step perturbs; callbacks may change them.

    Attributes:
        input_rule: What perturbs the input in place of the method's attack. None: the attack does.
        perturb_input: Whether the input is perturbed at all.
        layers: Places inside the network, each with its rule.
        used: Whether a method has looked at them.
    """

    def __init__(self) -> None:
        self.input_rule: Rule | None = None
        self.perturb_input = True
        self.layers: list[PerturbationSite] = []
        self.used = False

    @property
    def changed(self) -> bool:
        """Whether a callback has asked for anything."""
        return bool(self.layers) or self.input_rule is not None or not self.perturb_input


class Crafted:
    """The rule of an attack that has crafted in passes of its own: it replaces the value by the result.

    Args:
        x_adv: The adversarial input.
    """

    needs_grad = False

    def __init__(self, x_adv: Tensor) -> None:
        self.x_adv = x_adv

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        """Return the crafted input."""
        return with_gradient_of(value, self.x_adv)


def with_gradient_of(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return x_adv as x plus a constant, so that what x was computed from gets the gradient of x_adv."""
    return x + (x_adv - x).detach() if x.requires_grad else x_adv
