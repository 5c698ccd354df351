"""Perturbation sites: the places in a network at which the second forward pass is perturbed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

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
            raise RuntimeError(f"the forward pass never reached the perturbation site {type(self).__name__}")
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
