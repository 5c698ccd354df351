"""AutoAttack."""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import check_bounds, magnitude
from adv_lightning.attacks.external.adapter import UnitModel
from adv_lightning.attacks.external.base import ExternalAttack, Norm, load

Version = Literal["standard", "plus", "rand"]

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
