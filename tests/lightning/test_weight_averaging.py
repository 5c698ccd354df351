"""Averaged weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from adv_lightning import AdversarialCheckpoint, AdversarialModule
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.data import DigitsDataModule
from tests.lightning.conftest import Command
from tests.support.digits import Watch, fit, module, net, trainer
from tests.support.helpers import weights


@pytest.mark.switch("works", "StochasticWeightAveraging")
@pytest.mark.parametrize("norm", [False, True])
def test_stochastic_weight_averaging(norm: bool, tmp_path: Path) -> None:
    watch, model = Watch(), module(net(nn.BatchNorm1d(16)) if norm else None)
    kept = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    # An int counts from 1: epochs 2 and 3 of 3, and the weights that each starts with.
    average = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2)
    fit(model, max_epochs=3, enable_checkpointing=True, callbacks=[watch, average, kept])
    averaged = (watch.weights[3] + watch.weights[7]) / 2
    torch.testing.assert_close(weights(model), averaged, rtol=0, atol=1e-6)
    if norm:
        # One more epoch, of both passes, measures the statistics of the averaged weights.
        assert model.backbone[3].num_batches_tracked == 2 * 4
    else:
        last = AdversarialModule.load_from_checkpoint(kept.last_model_path, backbone=net())
        assert torch.equal(weights(last), watch.weights[-1])


def test_averaging_by_command(command: Command, tmp_path: Path) -> None:
    average = ["--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"]
    command(*average, "--trainer.callbacks.device=null")
    (config,) = tmp_path.rglob("config.yaml")
    again = main(["fit", f"--config={config}"]).trainer
    assert again.global_step == 4
    assert any(isinstance(callback, StochasticWeightAveraging) for callback in again.callbacks)


@pytest.mark.switch("works", "EMAWeightAveraging", "WeightAveraging")
@pytest.mark.parametrize("kind", [EMAWeightAveraging, WeightAveraging])
def test_weight_averaging(kind: type[WeightAveraging], tmp_path: Path) -> None:
    watch, model = Watch(), module()
    average = EMAWeightAveraging(decay=0.5) if kind is EMAWeightAveraging else WeightAveraging()
    best = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    run = fit(model, enable_checkpointing=True, callbacks=[watch, average, best])
    expected = watch.weights[0]
    for n, new in enumerate(watch.weights[1:], start=1):
        share = 0.5 if kind is EMAWeightAveraging else 1 / (n + 1)
        expected = (1 - share) * expected + share * new
    torch.testing.assert_close(weights(model), expected, rtol=0, atol=1e-6)
    # What was judged, and what the best checkpoint holds, are the averaged weights.
    kept = AdversarialModule.load_from_checkpoint(best.best_model_path, backbone=net())
    torch.testing.assert_close(weights(kept), expected, rtol=0, atol=1e-6)
    (again,) = trainer().validate(kept, datamodule=DigitsDataModule(), verbose=False)
    assert again["val/loss"] == pytest.approx(run.callback_metrics["val/loss"].item(), abs=1e-6)


@pytest.mark.switch("works", "EMAWeightAveraging")
def test_after_fit_judges_averaged_weights(command: Command, tmp_path: Path) -> None:
    average = ["--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging", "--trainer.callbacks.decay=0.8"]
    figures = command("--test_after_fit=true", *average).trainer.callback_metrics
    (best,) = tmp_path.rglob("best.ckpt")
    judged = main(["test", f"--ckpt_path={best}", "--trainer.logger=false", "--trainer.enable_progress_bar=false"])
    assert isinstance(judged, AdversarialCLI)
    for name, figure in judged.trainer.callback_metrics.items():
        assert figures[name].item() == figure.item()
