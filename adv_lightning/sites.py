"""Perturbation sites: the places in a network at which the second forward pass is perturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import Rule, check_differentiable_input


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
        relative: Apply the rule to the output divided by its root mean square over each example, and multiply the
            result by it: the perturbation of an additive rule is so as many times larger. FGSM's then has eps times
            the Euclidean norm of the example's output.

    Raises:
        ValueError: in a pass, the layer gives something else than one floating-point tensor, runs more than once, or
            runs under torch.utils.checkpoint.
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
            return self.value

        with self._replaced(record):
            yield x

    @contextmanager
    def perturbed(self, x: Tensor, direction: Tensor | None) -> Iterator[Tensor]:
        def perturb(output: Tensor) -> Tensor:
            assert self.rule is not None
            if not self.relative:
                return self.rule.step(output, direction)
            size = output.detach().square().mean(dim=tuple(range(1, output.dim())), keepdim=True).sqrt()
            nonzero = size > 0
            unit = torch.where(nonzero, size, 1)
            return torch.where(nonzero, unit * self.rule.step(output / unit, direction), output)

        with self._replaced(perturb):
            yield x

    @contextmanager
    def _replaced(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Hand the layer's output, once checked, through `change`."""
        calls = 0

        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            nonlocal calls
            calls += 1
            if not isinstance(output, Tensor) or not output.is_floating_point():
                kind = f"{output.dtype} tensor" if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"{self!r} gives a {kind}; only one floating-point tensor can be perturbed")
            if calls > 1:
                raise ValueError(
                    f"{self!r} runs more than once in a forward pass, so its output is not one place: perturb a layer "
                    "that runs once"
                )
            if is_checkpointing():
                raise ValueError(
                    f"{self!r} runs under torch.utils.checkpoint, which would compute it again without the "
                    "perturbation: perturb a layer outside of it"
                )
            return change(output)

        handle = self.layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


def is_checkpointing() -> bool:
    """Whether this is a training pass through a region under torch.utils.checkpoint."""
    if not torch.is_grad_enabled():  # its reentrant form
        return True
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


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
