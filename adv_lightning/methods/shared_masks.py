"""Dropout masks that two passes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from adv_lightning.attacks.base import Rule
from adv_lightning.methods.perturbation_sites import PerturbationSite


class SharedMasks:
    """Lets a second pass draw the numbers of the first from torch's generators.

    Make it before the first pass. In the second pass the rules of the sites draw on from where the first pass ended, so
    that their noise is independent of the masks, and does not move them.

    Args:
        device: Whose generator is repeated, beside that of the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = None if device.type == "cpu" else device
        self._first = self._now()

    @contextmanager
    def repeated(self, sites: Sequence[PerturbationSite]) -> Iterator[None]:
        """Around the second pass. Afterwards draws go on from where the first pass and the rules ended."""
        self._after = self._now()
        self._restore(self._first)
        rules = [site.rule for site in sites]
        for site, rule in zip(sites, rules, strict=True):
            site.rule = None if rule is None else _Apart(rule, self)
        try:
            yield
        finally:
            for site, rule in zip(sites, rules, strict=True):
                site.rule = rule
            self._restore(self._after)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Around a rule: it draws other numbers than the network."""
        network = self._now()
        self._restore(self._after)
        try:
            yield
        finally:
            self._after = self._now()
            self._restore(network)

    def _now(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device is not None:
            states.append(torch.get_device_module(self.device).get_rng_state(self.device))
        return states

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device is not None:
            torch.get_device_module(self.device).set_rng_state(states[1], self.device)


class _Apart:
    """A rule that draws apart from the network."""

    def __init__(self, rule: Rule, masks: SharedMasks) -> None:
        self.rule, self.masks = rule, masks
        self.needs_grad = rule.needs_grad
        self.differentiable = getattr(rule, "differentiable", False)

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        with self.masks.apart():
            return self.rule.step(value, grad)
