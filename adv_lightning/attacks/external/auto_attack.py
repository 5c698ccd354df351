"""AutoAttack."""

from __future__ import annotations

import inspect
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from adv_lightning.attacks.argument_checks import check_bounds, magnitude
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
    """The ensemble of parameter-free attacks of Croce and Hein (2020, arXiv:2003.01690), from torchattacks.

    The numbers are the paper's: 100 iterations of each gradient attack, the 9 most likely wrong classes as targets,
    and 5000 queries of Square. `torchattacks.AutoAttack` itself makes only 10 iterations. Each attack gets only the
    examples that the model still gets right after the attacks before it.

    Args:
        eps: Radius of the ball, in the units of the input: a number or a fraction such as 8/255.
        norm: Norm of the ball, "Linf" or "L2".
        version: "standard"; "plus", with more restarts; or "rand", for networks with random outputs.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of all draws.

    Raises:
        ValueError: eps is negative or not a number, `norm` or `version` is unknown, or `bounds` do not increase; when
            called, the model has fewer classes than the ensemble needs, 4, or 3 for "rand", or the images are smaller
            than the 5 x 5 that Square needs in L2.
        ImportError: torchattacks is not installed.
    """

    uses_gradient = True
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

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        classes, least = model(x).shape[1], 3 if self.version == "rand" else 4
        if classes < least:
            raise ValueError(
                f"AutoAttack with version={self.version!r} needs at least {least} classes, and the model has "
                f"{classes}: use PGD with restarts, or TorchAttack with APGD, FAB or Square"
            )
        if self.norm == "L2" and self.version != "rand" and min(x.shape[2:]) < 5:
            raise ValueError(
                f"AutoAttack with norm='L2' needs images of at least 5 x 5 pixels, and these have {list(x.shape[2:])}: "
                "use norm='Linf' or version='rand'"
            )
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
