"""Attacks from torchattacks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from adv_lightning.attacks.argument_checks import check_bounds, warn_of_short_walk
from adv_lightning.attacks.external.adapter import UnitModel
from adv_lightning.attacks.external.base import (
    ExternalAttack,
    Norm,
    check_name,
    checked_arguments,
    in_pixel_range,
    load,
)
from adv_lightning.attacks.threat_model import Ball


class TorchAttack(ExternalAttack):
    """Any attack from torchattacks, by its name (Kim 2020, arXiv:2010.01950).

    Args:
        name: Name of the class, such as MIFGSM or Square.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped; only for an attack
            that has an eps.
        seed: Seed of all draws.
        arguments: Arguments of the class other than model and seed. `eps`, `max_epsilon` and `alpha` are in the units
            of the input and may be fractions such as 8/255; `eps` or `max_epsilon` is required if the class has it.
            Everything else, and the library's default of `alpha`, is relative to the range of the pixels, as in the
            library.

    Raises:
        ValueError: no attack or argument has that name, an eps is missing or not a size, `bounds` do not increase, or
            `bounds` is None for an attack without an eps.
        ImportError: torchattacks is not installed.

    Warns:
        UserWarning: `steps * alpha` is less than `eps`. The library's default, 10 steps of 2/255, is for eps=8/255.
    """

    dtype = torch.float32  # the only one that all of its attacks support

    def __init__(
        self,
        name: str,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        known = _torchattacks()
        check_name("attack", name, known, "torchattacks")
        parameters = inspect.signature(known[name]).parameters
        taken = set(parameters) - {"model", "seed", "verbose"}
        self.name = name
        self.bounds = check_bounds(bounds)
        self.seed = seed
        self.arguments = checked_arguments(arguments, taken, name)
        for size in taken & {"eps", "max_epsilon"} - set(self.arguments):
            raise ValueError(f"{name} needs {size}: give it in arguments, in the units of the input")
        self._has_seed = "seed" in parameters
        norm = self.arguments.get("norm", "L2" if name in ("PGDL2", "PGDRSL2") else "Linf")
        check_name("norm", norm, get_args(Norm), name)
        self._p = 2.0 if norm == "L2" else math.inf
        if self.bounds is None and self.ball() is None:
            raise ValueError(f"{name} has no eps, so its result is not bounded: give bounds, such as (0, 1)")
        if {"eps", "alpha", "steps"} <= taken:
            defaults = {key: each.default for key, each in parameters.items()}
            eps, self.steps = self.arguments["eps"], self.arguments.get("steps", defaults["steps"])
            self.random_start = bool(self.arguments.get("random_start", defaults.get("random_start", False)))
            # Without bounds the range is known only when it is called; that of pixels in [0, 1] is taken here.
            span = 1 + 2 * eps if self.bounds is None else self.bounds[1] - self.bounds[0]
            self.step_size = self.arguments.get("alpha", defaults["alpha"] * span)
            warn_of_short_walk(f"TorchAttack {name}", eps, self.steps, self.step_size, "alpha")

    def ball(self) -> Ball | None:
        eps = self.arguments.get("eps", self.arguments.get("max_epsilon"))
        return None if eps is None else Ball(self._p, eps, self.bounds)

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        arguments = in_pixel_range(self.arguments, span)
        if self._has_seed:
            arguments["seed"] = seed
        found: Tensor = _torchattacks()[self.name](model, **arguments)(x, y)
        return found


def _torchattacks() -> dict[str, Callable[..., Any]]:
    """Return the attacks that can be built from a model alone, by name."""
    library = load("torchattacks")
    found = {}
    for name in library.__all__:
        first, *others = inspect.signature(getattr(library, name)).parameters.values()
        if first.name == "model" and name != "AutoAttack" and all(p.default is not p.empty for p in others):
            found[name] = getattr(library, name)
    return found
