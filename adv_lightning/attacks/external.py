"""Attacks of other libraries, in the units of this one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import check_bounds, magnitude
from adv_lightning.attacks.library import ExternalAttack, check_name, load
from adv_lightning.attacks.unit_model import UnitModel

Norm = Literal["Linf", "L2"]
Version = Literal["standard", "plus", "rand"]

_SIZES = {"eps", "max_epsilon", "alpha", "abs_stepsize"}
"""Arguments of the libraries that are given in the units of the input."""


class TorchAttack(ExternalAttack):
    """Any attack of torchattacks by its name (Kim 2020, arXiv:2010.01950).

    Args:
        name: Name of the class, such as MIFGSM or Square.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped, where the attack
            has an eps.
        seed: Seed of all draws.
        arguments: What the class takes beside model and seed. eps, max_epsilon and alpha are in the units of the input
            and may be fractions such as 8/255; eps or max_epsilon must be given where there is one. Everything else,
            and the library's default of alpha, counts in ranges of pixels, as in the library.

    Raises:
        ValueError: there is no attack or argument of that name, an eps is missing or no size, bounds are not
            increasing, or they are None for an attack without eps.
        ImportError: torchattacks is not installed.
    """

    dtype = torch.float32  # the only one that all attacks there can do

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
        self.arguments = _checked(arguments, taken, name)
        for size in taken & {"eps", "max_epsilon"} - set(self.arguments):
            raise ValueError(f"{name} takes {size}: give it in arguments, in the units of the input")
        self._has_seed = "seed" in parameters
        norm = self.arguments.get("norm", "L2" if name in ("PGDL2", "PGDRSL2") else "Linf")
        check_name("norm", norm, get_args(Norm), name)
        self._p = 2.0 if norm == "L2" else math.inf
        if self.bounds is None and self.ball() is None:
            raise ValueError(f"{name} has no eps that would bound a pixel: give bounds, such as (0, 1)")

    def ball(self) -> tuple[float, float] | None:
        eps = self.arguments.get("eps", self.arguments.get("max_epsilon"))
        return None if eps is None else (eps, self._p)

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        arguments = {name: value / span if name in _SIZES else value for name, value in self.arguments.items()}
        if self._has_seed:
            arguments["seed"] = seed
        found: Tensor = _torchattacks()[self.name](model, **arguments)(x, y)
        return found


class FoolboxAttack(ExternalAttack):
    """Any attack of foolbox that has a distance, by its name (Rauber et al. 2020, doi:10.21105/joss.02607).

    Args:
        name: Name of the class, such as L2DeepFoolAttack or LinfPGD.
        eps: Radius of the ball in the attack's own distance, in the units of the input: a number or a fraction such as
            8/255.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of all draws.
        arguments: What the class takes. abs_stepsize is in the units of the input; everything else counts in ranges of
            pixels, as in the library. A distance is written l1, l2 or linf.

    Raises:
        ValueError: there is no attack, argument or distance of that name, eps is negative or not a number, bounds are
            not increasing, or the distance is L0, in which foolbox holds nothing to an eps.
        TypeError: an argument is missing that the attack must have.
        ImportError: foolbox is not installed.
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
        self.arguments = _checked(arguments, set(inspect.signature(known[name]).parameters), name)
        self._p = float(self._build(1.0).distance.p)
        if self._p == 0:
            raise ValueError(f"{name} measures in L0, in which foolbox holds nothing to an eps: choose another attack")

    def ball(self) -> tuple[float, float]:
        return self.eps, self._p

    def _build(self, span: float) -> Any:
        arguments = {name: value / span if name in _SIZES else value for name, value in self.arguments.items()}
        if isinstance(distance := arguments.get("distance"), str):
            check_name("distance", distance, ("l1", "l2", "linf"), self.name)
            arguments["distance"] = getattr(load("foolbox").distances, distance)
        return _foolbox_attacks()[self.name](**arguments)

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        target = load("foolbox").PyTorchModel(model, bounds=(0, 1), device=x.device)
        found: Tensor = self._build(span)(target, x, y, epsilons=self.eps / span)[1]
        return found


_NUMBERS = {"steps": 100, "n_queries": 5000}
_ENSEMBLES: dict[Version, list[tuple[str, dict[str, Any]]]] = {
    "standard": [
        ("APGD", {"loss": "ce"}),
        ("APGDT", {}),
        ("FAB", {"multi_targeted": True}),
        ("Square", {}),
    ],
    "plus": [
        ("APGD", {"loss": "ce", "n_restarts": 5}),
        ("APGD", {"loss": "dlr", "n_restarts": 5}),
        ("FAB", {"n_restarts": 5}),
        ("Square", {}),
        ("APGDT", {}),
        ("FAB", {"multi_targeted": True}),
    ],
    "rand": [("APGD", {"loss": "ce", "eot_iter": 20}), ("APGD", {"loss": "dlr", "eot_iter": 20})],
}


class AutoAttack(ExternalAttack):
    """The ensemble of parameter-free attacks of Croce and Hein (2020, arXiv:2003.01690), by torchattacks.

    The numbers are the paper's: 100 iterations of each gradient attack, the 9 most likely wrong classes as targets,
    5000 queries of Square. `torchattacks.AutoAttack` itself makes 10 iterations. Each attack sees only the examples
    that the ones before have left right.

    Args:
        eps: Radius of the ball, in the units of the input: a number or a fraction such as 8/255.
        norm: Norm of the ball, "Linf" or "L2".
        version: "standard"; "plus", of more restarts; or "rand", for networks that answer at random.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of all draws.

    Raises:
        ValueError: eps is negative or not a number, norm or version is no such word, or bounds are not increasing;
            when called, the model has fewer classes than the ensemble can attack, which is 4, or 3 for "rand", or the
            images are too small for Square in L2.
        ImportError: torchattacks is not installed.
    """

    dtype = torch.float32

    def __init__(
        self,
        eps: float | str,
        norm: Norm = "Linf",
        version: Version = "standard",
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, word, words in (("norm", norm, Norm), ("version", version, Version)):
            if word not in get_args(words):
                raise ValueError(f"{name}={word!r}: give one of {', '.join(get_args(words))}")
        load("torchattacks")
        self.eps = magnitude("eps", eps)
        self.norm = norm
        self.version = version
        self.bounds = check_bounds(bounds)
        self.seed = seed

    def ball(self) -> tuple[float, float]:
        return self.eps, 2 if self.norm == "L2" else math.inf

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        classes, least = model(x).shape[1], 3 if self.version == "rand" else 4
        if classes < least:
            raise ValueError(
                f"AutoAttack of version={self.version!r} compares the {least} largest logits, and the model has "
                f"{classes}: use PGD with restarts, TorchAttack of APGD, FAB or Square, or all of them"
            )
        if self.norm == "L2" and self.version != "rand" and min(x.shape[2:]) < 5:
            raise ValueError(f"AutoAttack in L2 draws squares on images of 5 x 5 and more, not {list(x.shape[2:])}")
        members = self._members(model, classes, self.eps / span, seed)
        found: Tensor = load("torchattacks").MultiAttack(members)(x, y)
        return found

    def _members(self, model: nn.Module, classes: int, eps: float, seed: int) -> list[Any]:
        members = []
        for name, arguments in _ENSEMBLES[self.version]:
            cls = getattr(load("torchattacks"), name)
            numbers = _NUMBERS | {"n_classes": min(classes, 10)}
            taken = inspect.signature(cls).parameters
            arguments = {number: value for number, value in numbers.items() if number in taken} | arguments
            members.append(cls(model, norm=self.norm, eps=eps, seed=seed, **arguments))
        return members


def _torchattacks() -> dict[str, Callable[..., Any]]:
    """Return the attacks by name that need nothing but a model."""
    library = load("torchattacks")
    found = {}
    for name in library.__all__:
        first, *others = inspect.signature(getattr(library, name)).parameters.values()
        if first.name == "model" and name != "AutoAttack" and all(p.default is not p.empty for p in others):
            found[name] = getattr(library, name)
    return found


def _foolbox_attacks() -> dict[str, Callable[..., Any]]:
    """Return the attacks by name that have a distance."""
    attacks = load("foolbox").attacks
    base = attacks.base.AttackWithDistance
    found = {name: cls for name, cls in vars(attacks).items() if inspect.isclass(cls) and issubclass(cls, base)}
    return {name: cls for name, cls in found.items() if not inspect.isabstract(cls)}


def _checked(arguments: dict[str, Any] | None, taken: set[str], owner: str) -> dict[str, Any]:
    """Return the arguments, sizes as numbers, or raise ValueError at one that is not taken."""
    for name in arguments or {}:
        check_name("argument", name, taken, owner)
    return {name: magnitude(name, value) if name in _SIZES else value for name, value in (arguments or {}).items()}
