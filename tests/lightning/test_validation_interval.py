"""When validation runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adv_lightning import AdversarialCheckpoint, AdversarialEarlyStopping
from adv_lightning.data import DigitsDataModule
from tests.support.digits import Watch, files, fit, module, trainer


@pytest.mark.switch("works", "val_check_interval=0.5")
def test_val_check_interval(tmp_path: Path) -> None:
    watch, stopping = Watch(), AdversarialEarlyStopping(patience=2)
    best = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    # With a rate of 0 nothing improves: the first check is the best, the third is the second without improvement.
    run = fit(
        module(lr=0.0),
        val_check_interval=0.5,
        max_epochs=9,
        enable_checkpointing=True,
        callbacks=[watch, stopping, best],
    )
    assert watch.validated == [2, 4, 6]
    assert run.global_step == 6
    assert (stopping.best_epoch, stopping.stopped_epoch, stopping.wait_count) == (0, 1, 2)
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 2


def test_says_that_it_stopped_in_epoch_0(caplog: pytest.LogCaptureFixture) -> None:
    run = fit(module(lr=0.0), val_check_interval=0.25, max_epochs=9, callbacks=[AdversarialEarlyStopping(patience=1)])
    assert run.global_step == 2
    assert "Stopped after epoch 0" in caplog.text


@pytest.mark.switch("works", "check_val_every_n_epoch=2")
def test_check_val_every_n_epoch() -> None:
    watch, stopping = Watch(), AdversarialEarlyStopping(patience=1)
    run = fit(module(lr=0.0), check_val_every_n_epoch=2, max_epochs=9, callbacks=[watch, stopping])
    assert watch.validated == [8, 16]
    assert (run.current_epoch, stopping.best_epoch) == (4, 1)


def test_last_checkpoint_of_an_epoch_without_figure(tmp_path: Path) -> None:
    kept = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    fit(module(val_attack_every_n_epochs=2), max_epochs=3, enable_checkpointing=True, callbacks=[kept])
    steps = {n: torch.load(tmp_path / "kept" / n, weights_only=True)["global_step"] for n in files(tmp_path / "kept")}
    assert steps == {"best.ckpt": 8, "last.ckpt": 12}


@pytest.mark.switch("works", "num_sanity_val_steps=2")
def test_num_sanity_val_steps() -> None:
    watch, stopping = Watch(), AdversarialEarlyStopping()
    fit(module(), num_sanity_val_steps=2, limit_val_batches=2, limit_train_batches=1, callbacks=[watch, stopping])
    assert watch.events == ["val", "val", "epoch", "train", "val", "val"]
    assert stopping.best_epoch == 0


@pytest.mark.switch("works", "inference_mode=False")
def test_inference_mode() -> None:
    def judged(inference_mode: bool) -> dict[str, float]:
        run = trainer(inference_mode=inference_mode)
        (found,) = run.test(module(), datamodule=DigitsDataModule(), verbose=False)
        run.predict(module(predict_attacked=True), datamodule=DigitsDataModule())
        return dict(found)

    assert judged(False) == judged(True)
    assert judged(False)["test/adv_error"] > 0
