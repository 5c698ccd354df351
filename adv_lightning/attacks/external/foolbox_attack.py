"""Attacks from foolbox."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from adv_lightning.attacks.argument_checks import check_bounds, magnitude, warn_of_short_walk
from adv_lightning.attacks.external.adapter import UnitModel
from adv_lightning.attacks.external.base import ExternalAttack, check_name, checked_arguments, in_pixel_range, load
from adv_lightning.attacks.threat_model import Ball


class FoolboxAttack(ExternalAttack):
    """Any foolbox attack that measures a distance, by its name (Rauber et al. 2020, doi:10.21105/joss.02607).

    Args:
        name: Name of the class, such as L2DeepFoolAttack or LinfPGD.
        eps: Radius of the ball in the attack's own distance, in the units of the input: a number or a fraction such as
            8/255.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of all draws.
        arguments: Arguments of the class. `abs_stepsize` is in the units of the input; everything else is relative to
            the range of the pixels, as in the library. A distance is written l1, l2 or linf.

    Raises:
        ValueError: no attack, argument or distance has that name, eps is negative or not a number, `bounds` do not
            increase, or the distance is L0, in which foolbox does not keep to an eps.
        TypeError: an argument is missing that the attack requires.
        ImportError: foolbox is not installed.

    Warns:
        UserWarning: its steps together are shorter than `eps`.
    """

    def __init__(
        self,
        name: str,
        eps: float | str,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        known = _foolbox_attacks()
        check_name("attack", name, known, "foolbox")
        self.name = name
        self.eps = magnitude("eps", eps)
        self.bounds = check_bounds(bounds)
        self.seed = seed
        self.arguments = checked_arguments(arguments, set(inspect.signature(known[name]).parameters), name)
        built = self._build(1.0)
        self._p = float(built.distance.p)
        if self._p == 0:
            raise ValueError(f"{name} measures in L0, in which foolbox does not keep to an eps: choose another attack")
        if hasattr(built, "steps") and hasattr(built, "rel_stepsize"):
            given = getattr(built, "abs_stepsize", None)
            self.steps, self.random_start = int(built.steps), bool(getattr(built, "random_start", False))
            self.step_size = float(built.rel_stepsize * self.eps if given is None else given)
            warn_of_short_walk(f"FoolboxAttack {name}", self.eps, self.steps, self.step_size, "rel_stepsize")

    def ball(self) -> Ball:
        return Ball(self._p, self.eps, self.bounds)

    def _build(self, span: float) -> Any:
        arguments = in_pixel_range(self.arguments, span)
        if isinstance(distance := arguments.get("distance"), str):
            check_name("distance", distance, ("l1", "l2", "linf"), self.name)
            arguments["distance"] = getattr(load("foolbox").distances, distance)
        return _foolbox_attacks()[self.name](**arguments)

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        target = load("foolbox").PyTorchModel(model, bounds=(0, 1), device=x.device)
        found: Tensor = self._build(span)(target, x, y, epsilons=self.eps / span)[1]
        return found


def _foolbox_attacks() -> dict[str, Callable[..., Any]]:
    """Return the attacks that measure a distance, by name."""
    attacks = load("foolbox").attacks
    base = attacks.base.AttackWithDistance
    found = {name: cls for name, cls in vars(attacks).items() if inspect.isclass(cls) and issubclass(cls, base)}
    return {name: cls for name, cls in found.items() if not inspect.isabstract(cls)}
