"""What watches a figure of an attack is told before training if the figure is not there when it looks."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau

from adv_lightning import FGSM, AdversarialCheckpoint, AdversarialEarlyStopping, AdversarialModule
from tests.support.helpers import batches, fit, mlp

ADV = "val/adv_error"


def train(callback: Callback | None = None, every: int = 2, **kwargs: Any) -> AdversarialModule:
    attack = kwargs.pop("attack", FGSM(0.1))
    module = AdversarialModule(mlp(), attack, val_attack_every_n_epochs=every, **kwargs)
    steps: list[int] = []
    module.register_forward_hook(lambda *_: steps.append(module.training))
    try:
        fit(
            module, batches(2), batches(1), max_epochs=4, callbacks=[] if callback is None else [callback],
            enable_checkpointing=isinstance(callback, ModelCheckpoint),
        )  # fmt: skip
    except ValueError:
        assert not any(steps)  # nothing was trained
        raise
    return module


def plateau(monitor: str) -> Any:
    return partial(ReduceLROnPlateau, monitor=monitor)


@pytest.mark.parametrize("every", [2, 3])
def test_early_stopping(every: int) -> None:
    words = rf"EarlyStopping watches val/adv_error every epoch, but it is measured every {every} epochs \(val_attack_"
    with pytest.raises(ValueError, match=words):
        train(EarlyStopping(ADV), every)


def test_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ModelCheckpoint watches val/adv_error every epoch, but"):
        train(ModelCheckpoint(tmp_path, monitor=ADV))
    with pytest.raises(ValueError, match="ModelCheckpoint watches val/adv_confidence every 3 epochs, but"):
        train(ModelCheckpoint(tmp_path, monitor="val/adv_confidence", every_n_epochs=3))


def test_scheduler() -> None:
    with pytest.raises(ValueError, match="ReduceLROnPlateau watches val/adv_error every epoch, but"):
        train(lr_scheduler=plateau(ADV))


@pytest.mark.parametrize("watcher", [EarlyStopping(ADV), None])
def test_without_an_attack(watcher: Callback | None) -> None:
    kwargs = {} if watcher is not None else {"lr_scheduler": plateau(ADV)}
    with pytest.raises(ValueError, match="watches val/adv_error, but no attack judges the network: give it a val_att"):
        train(watcher, attack=None, **kwargs)


def test_what_looks_when_it_is_measured_or_elsewhere_trains(tmp_path: Path) -> None:
    for callback in (
        AdversarialEarlyStopping(),
        AdversarialCheckpoint(dirpath=tmp_path / "a"),
        EarlyStopping("val/error"),
        EarlyStopping(ADV, strict=False),
        ModelCheckpoint(tmp_path / "b", monitor=ADV, every_n_epochs=2),
        ModelCheckpoint(tmp_path / "c"),
    ):
        assert train(callback).trainer.current_epoch == 4
    assert train(EarlyStopping(ADV, patience=9), every=1).trainer.current_epoch == 4
    found = train(lr_scheduler=plateau("val/error"))
    assert math.isfinite(found.trainer.callback_metrics["val/error"])
    assert isinstance(found.trainer.lr_scheduler_configs[0].scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


@pytest.mark.parametrize(("validated", "own"), [(2, 1), (1, 2), (2, 2)])
def test_a_checkpoint_looks_when_there_is_a_validation(validated: int, own: int, tmp_path: Path) -> None:
    kept = ModelCheckpoint(tmp_path, monitor=ADV, every_n_epochs=own)
    module = AdversarialModule(mlp(), FGSM(0.1), val_attack_every_n_epochs=2)
    fit(
        module, batches(2), batches(1), max_epochs=4, callbacks=[kept], check_val_every_n_epoch=validated,
        enable_checkpointing=True,
    )  # fmt: skip
    assert kept.best_model_score is not None
