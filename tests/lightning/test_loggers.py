"""What is logged and shown."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.lightning.conftest import Command
from tests.support.digits import figures, files, fit, module


@pytest.mark.switch("works", "logger=False")
def test_no_logger(command: Command, tmp_path: Path) -> None:
    cli = command("--trainer.logger=false", "--test_after_fit=true")
    assert "test/adv_error" in cli.trainer.callback_metrics
    assert files(tmp_path) == ["best.ckpt", "last.ckpt"]


@pytest.mark.switch("works", "logger=CSVLogger")
def test_csv_logger(command: Command, tmp_path: Path) -> None:
    cli = command("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}")
    (written,) = (row["val/adv_error"] for row in figures(tmp_path / "csv") if row["val/adv_error"])
    assert float(written) == pytest.approx(cli.trainer.callback_metrics["val/adv_error"].item())
    assert [row["step"] for row in figures(tmp_path / "csv") if row["train/adv_loss"]] == ["0", "1", "2", "3"]
    run = [".training.lock", "best.ckpt", "config.yaml", "hparams.yaml", "last.ckpt", "metrics.csv"]
    assert files(tmp_path) == run


@pytest.mark.switch("works", "two loggers")
def test_two_loggers(tmp_path: Path) -> None:
    run = fit(module(), logger=[CSVLogger(tmp_path / "a"), TensorBoardLogger(tmp_path / "b")])
    (written,) = (float(row["val/adv_error"]) for row in figures(tmp_path / "a") if row["val/adv_error"])
    (events,) = (tmp_path / "b").rglob("events*")
    (scalar,) = EventAccumulator(str(events)).Reload().Scalars("val/adv_error")
    assert written == pytest.approx(scalar.value) == pytest.approx(run.callback_metrics["val/adv_error"].item())


@pytest.mark.switch("works", "enable_progress_bar", "RichProgressBar", "TQDMProgressBar")
@pytest.mark.parametrize("bar", [None, RichProgressBar(), TQDMProgressBar()], ids=["off", "rich", "tqdm"])
def test_progress_bar(bar: Callback | None, capsys: pytest.CaptureFixture[str]) -> None:
    fit(module(), enable_progress_bar=bar is not None, callbacks=[] if bar is None else [bar])
    shown = "".join(capsys.readouterr())
    assert ("val/adv_error" in shown) == (bar is not None)


@pytest.mark.switch("works", "enable_model_summary")
@pytest.mark.parametrize("enabled", [False, True])
def test_model_summary(enabled: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    fit(module(), enable_model_summary=enabled)
    assert ("Trainable params" in "".join(capsys.readouterr()) + caplog.text) == enabled


@pytest.mark.switch("works", "LearningRateMonitor")
def test_learning_rate_monitor(tmp_path: Path) -> None:
    halved = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    model = module(lr=0.8, lr_scheduler=halved, lr_interval="step")
    fit(model, logger=CSVLogger(tmp_path), callbacks=[LearningRateMonitor("step")])
    rates = [float(row["lr-SGD"]) for row in figures(tmp_path) if row["lr-SGD"]]
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1])
