"""The scheduler's interval, and the figure it watches."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau

from adv_lightning import FGSM, AdversarialModule
from tests.support.helpers import batches, fit, mlp

SGD = partial(torch.optim.SGD, lr=0.1)


class Rates(Callback):
    """The learning rate at the start of each batch and epoch."""

    def __init__(self) -> None:
        self.batches: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.batches.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(("interval", "rates"), [("step", [1, 0.5, 0.25, 0.125]), ("epoch", [1, 1, 0.5, 0.5])])
def test_lr_interval(interval: str, rates: list[float]) -> None:
    seen = Rates()
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    optimizer = partial(torch.optim.SGD, lr=1.0)
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=optimizer, lr_scheduler=schedule, lr_interval=interval)  # type: ignore[arg-type]
    fit(module, batches(2), max_epochs=2, callbacks=[seen])
    assert seen.batches == rates


def test_plateau_of_adversarial_error() -> None:
    seen = Rates()
    plateau = partial(ReduceLROnPlateau, monitor="val/adv_error", patience=0, factor=0.1)
    module = AdversarialModule(
        mlp(), FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=1e-12), lr_scheduler=plateau
    )  # fmt: skip
    fit(module, batches(1), batches(2), max_epochs=4, callbacks=[seen])
    assert seen.batches == pytest.approx([1e-12, 1e-12, 1e-13, 1e-14], rel=1e-6)
