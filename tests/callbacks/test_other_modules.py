"""Callbacks that need an AdversarialModule refuse every other LightningModule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from adv_lightning import (
    FGSM,
    ClassCentres,
    FiniteLoss,
    HiddenPerturbation,
    InputNoise,
    L1Penalty,
    RubbishTraining,
    SignNoise,
)
from tests.support.helpers import batches, quiet_trainer


class Plain(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())


@pytest.mark.parametrize(
    "callback",
    [
        ClassCentres(),
        FiniteLoss(),
        HiddenPerturbation(["0"], FGSM(0.1)),
        InputNoise(SignNoise(0.1)),
        L1Penalty(0.1, ["0"]),
        RubbishTraining(),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_refuses_another_module(callback: Callback) -> None:
    with pytest.raises(TypeError, match=rf"{type(callback).__name__}.*AdversarialModule.*Plain") as caught:
        quiet_trainer(callbacks=[callback]).fit(Plain(), batches(1))
    assert caught.value.__context__ is None  # cleaning up after the error raised no second one
