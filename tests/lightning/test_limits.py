"""How long a run trains, and on how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from adv_lightning import AdversarialCheckpoint, AdversarialEarlyStopping
from adv_lightning.data import DigitsDataModule
from tests.lightning.conftest import Command
from tests.support.digits import Watch, files, fit, module, trainer


@pytest.mark.switch("works", "fast_dev_run=True")
def test_fast_dev_run(command: Command, tmp_path: Path) -> None:
    cli = command("--trainer.fast_dev_run=true", "--test_after_fit=true")
    assert cli.trainer.global_step == 1
    assert "test/adv_error" in cli.trainer.callback_metrics
    assert files(tmp_path) == []


@pytest.mark.switch("works", "overfit_batches=2")
@pytest.mark.filterwarnings("ignore:You requested to overfit")  # Lightning says that it stops the shuffling
def test_overfit_batches() -> None:
    watch = Watch()
    fit(module(lr=0.5), overfit_batches=2, limit_train_batches=1.0, max_epochs=5, callbacks=[watch])
    first, second = watch.labels[:2]
    assert first != second
    assert watch.labels == [first, second] * 5
    assert sum(watch.losses[-2:]) < 0.95 * sum(watch.losses[:2])


@pytest.mark.switch("works", "limit_train_batches", "limit_val_batches", "limit_test_batches")
def test_limits() -> None:
    watch, model, data = Watch(), module(), DigitsDataModule()
    run = trainer(limit_train_batches=3, limit_val_batches=2, limit_test_batches=1, callbacks=[watch])
    run.fit(model, datamodule=data)
    run.test(model, datamodule=data, verbose=False)
    assert watch.events == ["epoch", "train", "train", "train", "val", "val", "test"]


@pytest.mark.switch("works", "limit_val_batches=0")
def test_without_validation(tmp_path: Path) -> None:
    folder, kept = tmp_path / "kept", []

    class Look(Callback):
        def on_train_epoch_start(self, *args: Any) -> None:
            kept.append(files(folder))

    last = AdversarialCheckpoint(dirpath=folder)
    run = fit(module(), limit_val_batches=0, enable_checkpointing=True, callbacks=[last, Look()], max_epochs=2)
    assert [*kept, files(folder)] == [[], ["last.ckpt"], ["last.ckpt"]]
    assert torch.load(last.last_model_path, weights_only=True)["global_step"] == run.global_step == 8


@pytest.mark.switch("refused", "limit_val_batches=0 with early stopping")
def test_early_stopping_without_validation() -> None:
    message = r"val/adv_error.* no validation: .*callbacks.early_stopping=null"
    for data, limit in ((None, 0), (DigitsDataModule(val_size=0), 1)):
        with pytest.raises(ValueError, match=message):
            fit(module(), data, limit_val_batches=limit, callbacks=[AdversarialEarlyStopping()])


@pytest.mark.switch("works", "max_steps")
def test_max_steps() -> None:
    watch = Watch()
    run = fit(module(), max_epochs=-1, max_steps=5, accumulate_grad_batches=2, callbacks=[watch])
    assert (run.global_step, watch.events.count("train")) == (5, 10)


@pytest.mark.switch("works", "max_time")
def test_max_time(command: Command) -> None:
    assert command("--trainer.max_time=00:00:00:00").trainer.global_step == 0
    assert command("--trainer.max_time=00:01:00:00").trainer.global_step == 4


@pytest.mark.switch("works", "log_every_n_steps=0")
def test_log_every_n_steps_0() -> None:
    run = fit(module(), log_every_n_steps=0)
    assert "train/loss" not in run.callback_metrics
    assert "train/loss_epoch" in run.callback_metrics
