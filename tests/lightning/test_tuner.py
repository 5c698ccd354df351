"""The tuner's learning rates and batch sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.tuner import Tuner

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.data import DigitsDataModule
from tests.lightning.conftest import Command
from tests.support.digits import EPS, files, fit, module, net, trainer
from tests.support.helpers import weights


@pytest.mark.switch("refused", "Tuner.lr_find")
def test_lr_find() -> None:
    with pytest.raises(AttributeError, match=r"either `model` or `model.hparams` should have one of these fields"):
        Tuner(trainer()).lr_find(module(), datamodule=DigitsDataModule())


class Tunable(AdversarialModule):
    """A rate that the tuner can see, as in the documentation."""

    def __init__(self, lr: float = 0.1, **kwargs: Any) -> None:
        super().__init__(optimizer=lambda params: torch.optim.SGD(params, lr=self.lr), **kwargs)
        self.lr = lr


@pytest.mark.switch("works", "Tuner.lr_find, lr in a subclass")
def test_lr_find_with_a_rate(tmp_path: Path) -> None:
    model = Tunable(backbone=net(), attack=FGSM(EPS))
    before = weights(model)
    run = trainer(limit_train_batches=1.0, max_epochs=9, default_root_dir=tmp_path)
    found = Tuner(run).lr_find(model, datamodule=DigitsDataModule(), num_training=30, min_lr=1e-4, max_lr=10)
    assert found.suggestion() == model.lr != 0.1
    assert torch.equal(weights(model), before)
    fit(model, limit_train_batches=1)
    assert not torch.equal(weights(model), before)


@pytest.mark.switch("works", "Tuner.scale_batch_size")
def test_scale_batch_size(command: Command, tmp_path: Path) -> None:
    cli = command("--trainer.fast_dev_run=true", "--data.batch_size=10")
    before = weights(cli.model)
    run = trainer(default_root_dir=tmp_path)
    size = Tuner(run).scale_batch_size(
        cli.model, datamodule=cli.datamodule, init_val=10, max_trials=3, steps_per_trial=1
    )
    assert size == cli.datamodule.batch_size == 40
    assert torch.equal(weights(cli.model), before)
    assert files(tmp_path) == []
