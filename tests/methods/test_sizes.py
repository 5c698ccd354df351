"""An eps in other units than the inputs, and a network that trains itself: a warning says what to do."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from adv_lightning import FGSM, PGD, AdversarialModule
from adv_lightning.models import Ensemble, Normalized
from tests.support.helpers import Batches, fit, mlp, quiet_trainer


def loader(low: float, high: float) -> Batches:
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (high - low) + low
    x[0, :2] = torch.tensor([low, high])
    return Batches((x, torch.arange(8) % 3))


PIXELS, BYTES, NORMALISED = loader(0, 1), loader(0, 255), loader(-2.1, 2.6)
BEYOND, OTHER_UNITS = "eps is larger than the range", r"eps is 8/255, a size for pixels in \[0, 1\]"


@pytest.mark.parametrize(
    ("attack", "data", "words"),
    [
        (FGSM(8), PIXELS, BEYOND),
        (FGSM(8, bounds=(0, 1)), PIXELS, BEYOND),
        (PGD(16, steps=1), NORMALISED, BEYOND),
        (FGSM("8/255"), NORMALISED, OTHER_UNITS),
        (PGD(8 / 255, steps=1), NORMALISED, OTHER_UNITS),
        (FGSM("8/255"), BYTES, OTHER_UNITS),
    ],
)
def test_warns(attack: Any, data: Batches, words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        fit(AdversarialModule(mlp(), attack), data)
    with pytest.warns(UserWarning, match=words):
        quiet_trainer().validate(AdversarialModule(mlp(), val_attack=attack), data, verbose=False)


@pytest.mark.parametrize(
    ("attack", "data"),
    [
        (FGSM("8/255"), PIXELS),
        (FGSM(0.25), PIXELS),
        (FGSM(1), PIXELS),
        (FGSM(8), BYTES),
        (FGSM(0.25), NORMALISED),
        (FGSM(0.0), NORMALISED),
        (None, NORMALISED),
    ],
)
def test_says_nothing(attack: Any, data: Batches) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*eps is")
        fit(AdversarialModule(mlp(), attack), data, data)


class Trains(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).sum()


class Forward(LightningModule):
    """A LightningModule that is a network and no more."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (Trains, "the backbone is a Trains, which has a training_step"),
        (lambda: nn.Sequential(nn.Identity(), Trains()), r"the backbone \(1\) is a Trains"),
        (lambda: Ensemble([mlp(), Trains()]), r"the backbone \(members\.1\) is a Trains"),
        (lambda: Normalized(Trains(), [0.5], [0.2]), r"is a Trains"),
    ],
)
def test_a_backbone_that_trains_itself_is_named(backbone: Any, words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        AdversarialModule(backbone(), FGSM(0.1))


def test_networks_and_modules_of_ours_are_not() -> None:
    for backbone in (mlp(), nn.Sequential(AdversarialModule(mlp(), FGSM(0.1))), Forward()):
        AdversarialModule(backbone, FGSM(0.1))
