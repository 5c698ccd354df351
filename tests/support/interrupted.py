"""Runs that end too early, and runs that go on from there."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, SequentialLR

from adv_lightning import AdversarialModule
from adv_lightning.data import DigitsDataModule
from tests.support.helpers import fit, quiet_trainer, weights


class At(Callback):
    """Does something once, after an optimizer step."""

    def __init__(self, step: int, act: Callable[[Trainer], Any]) -> None:
        self.step = step
        self.act = act

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.act(trainer)


class RemoveRun(Callback):
    """Removes the run's folder after three steps, as somebody who tidies up does."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == 3 and trainer.log_dir:
            shutil.rmtree(trainer.log_dir)


class StopAt(Callback):
    """Asks for the end of training after three steps, as max_time does."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        trainer.should_stop |= trainer.global_step == 3


class Constants(SequentialLR):
    """A learning rate that stays as it is, in two parts."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, [ConstantLR(optimizer, 1.0), ConstantLR(optimizer, 1.0)], milestones=[100])


def broken_off(module: AdversarialModule, loader: Any, error: type[BaseException], *callbacks: Callback) -> None:
    """Fit, and raise `error` after the second step."""

    def stop(trainer: Trainer) -> None:
        raise error("stopped")

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
            fit(module, loader, callbacks=[*callbacks, At(2, stop)])
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from the first interrupt on


def whole_and_resumed(build: Callable[[], tuple[AdversarialModule, list[Callback]]], tmp_path: Path) -> list[Tensor]:
    """The weights after ten steps on digits in two epochs: in one go, and from a checkpoint in each epoch's middle."""
    paths = [tmp_path / "2.ckpt", tmp_path / "7.ckpt"]

    def run(ckpt: Path | None, *more: Callback) -> Tensor:
        module, callbacks = build()
        data = DigitsDataModule(batch_size=40, seed=3)
        trainer = quiet_trainer(max_epochs=2, limit_train_batches=5, limit_val_batches=1, callbacks=[*callbacks, *more])
        torch.manual_seed(0 if ckpt is None else 1)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt)
        assert trainer.global_step == 10
        return weights(module)

    saved = [
        At(step, lambda trainer, path=path: trainer.save_checkpoint(path))
        for step, path in zip((2, 7), paths, strict=True)
    ]
    return [run(None, *saved), *(run(path) for path in paths)]
