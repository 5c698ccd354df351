"""Perturbation sites: the places in a network at which the second forward pass is perturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import Rule, check_differentiable_input
from adv_lightning.attacks.scaled_gradient import rows


class PerturbationSite:
    """One place and the rule that acts there. The input is one; a layer's output may be another.

    A subclass gives two contexts, one around each forward pass. Each takes x and yields x as the model shall see
    it; a site inside the network registers its hooks there and removes them again.

    Args:
        rule: What perturbs the value. None: the site does nothing.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule
        self.value: Tensor | None = None
        self.used = False
        """Whether a pass has been perturbed here."""

    def __repr__(self) -> str:
        return type(self).__name__

    @property
    def needs_grad(self) -> bool:
        """Whether the rule follows a gradient."""
        return self.rule is not None and self.rule.needs_grad

    @property
    def differentiable(self) -> bool:
        """Whether training goes through the perturbation too."""
        return getattr(self.rule, "differentiable", False)

    @contextmanager
    def recorded(self, x: Tensor) -> Iterator[Tensor]:
        """Around the clean pass: put the tensor to differentiate by into `value`."""
        raise NotImplementedError(f"{type(self).__name__} must define recorded(x)")
        yield x

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        """Around the second pass: apply the rule along `direction`, each example's own gradient at the clean value.

        A site inside the network applies the rule to the value of this pass, not to the recorded one, so that
        gradient flows through it to the layers below.
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
            raise RuntimeError(f"the forward pass never reached the perturbation site {self!r}")
        return value


class InputSite(PerturbationSite):
    """The input of the network."""

    @contextmanager
    def recorded(self, x: Tensor) -> Iterator[Tensor]:
        check_differentiable_input(x)
        self.value = x.detach().requires_grad_()
        yield self.value

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        assert self.rule is not None
        yield self.rule.step(x.detach(), direction)


class LayerSite(PerturbationSite):
    """The output of a layer: one tensor, [B, ...], from one call in each pass.

    Args:
        layer: The layer, a module of the network.
        name: What errors call it.
        rule: As for PerturbationSite.
        relative: Apply the rule to the output divided by its root mean square over each example, a constant, and
            multiply the result by it: the perturbation of an additive rule is so as many times larger. FGSM's then
            has eps times the Euclidean norm of the example's output.

    Raises:
        ValueError: in a pass, the layer gives something else than one floating-point tensor [B, ...], runs more than
            once, or runs under torch.utils.checkpoint or torch.no_grad.
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
            # Frozen layers below leave nothing to differentiate by.
            self.value = output if output.requires_grad else output.detach().requires_grad_()
            # A layer above may work in place, and must not turn the value into its own output.
            return self.value.clone()

        with self._replaced(record, len(x)):
            yield x

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        def perturb(output: Tensor) -> Tensor:
            assert self.rule is not None
            if not self.relative:
                return self.rule.step(output, direction)
            # In float32 at least, as half precision would overflow.
            size = rows(output.detach()).square().mean(dim=1).sqrt().view(-1, *[1] * (output.dim() - 1))
            unit = torch.where(size > 0, size, 1)
            moved = unit * self.rule.step(output / unit, direction)
            return torch.where(size > 0, moved, output).to(output.dtype)

        self.used = True
        with self._replaced(perturb, len(x)):
            yield x

    @contextmanager
    def _replaced(self, change: Callable[[Tensor], Tensor], batch_size: int) -> Iterator[None]:
        """Hand the layer's output, once checked, through `change`."""
        calls = 0

        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            nonlocal calls
            calls += 1
            value = single_tensor(output, self)
            if calls > 1:
                raise ValueError(
                    f"{self!r} runs more than once in a forward pass, so its output is not one place: perturb a layer "
                    "that runs once"
                )
            if value.shape[:1] != (batch_size,):
                raise ValueError(
                    f"{self!r} gives a tensor of shape {list(value.shape)} for a batch of {batch_size}, so it does not "
                    f"say which part belongs to which example: perturb a layer that gives [{batch_size}, ...]"
                )
            if not torch.is_grad_enabled() or _saves_for_checkpoint():
                raise ValueError(
                    f"{self!r} runs under torch.utils.checkpoint, which would compute it again without the "
                    "perturbation, or under torch.no_grad: perturb a layer outside of it"
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
        ValueError: it is something else.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = f"{output.dtype} tensor" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{layer!r} gives a {kind}; only one floating-point tensor can be perturbed or measured")
    return output


def _saves_for_checkpoint() -> bool:
    """Whether the pass is in a region of torch.utils.checkpoint's form that is not reentrant."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


class Sites:
    """The places that a training step perturbs, as callbacks may change them.

    Attributes:
        input_rule: What perturbs the input in place of the method's attack. None: the attack does.
        perturb_input: Whether the input is perturbed at all.
        layers: Places inside the network, each with its rule.
    """

    def __init__(self) -> None:
        self.input_rule: Rule | None = None
        self.perturb_input = True
        self.layers: list[PerturbationSite] = []


class Crafted:
    """The rule of an attack that crafts in passes of its own: a step to what it has made.

    Args:
        x_adv: The adversarial input.
    """

    needs_grad = False

    def __init__(self, x_adv: Tensor) -> None:
        self.x_adv = x_adv

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        """Return the crafted input, whatever the value."""
        return self.x_adv
