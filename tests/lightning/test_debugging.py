"""Deterministic runs, anomalies, profiles and bare trainers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from adv_lightning.data import DigitsDataModule
from tests.lightning.conftest import Command
from tests.support.digits import files, fit, module, net
from tests.support.helpers import weights


@pytest.fixture
def _deterministic() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.switch("works", "deterministic=True")
@pytest.mark.usefixtures("_deterministic")
def test_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it, and leaves it set
    asked = []

    class Asked(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            asked.append(torch.are_deterministic_algorithms_enabled())

    def trained() -> Tensor:
        model = module(net(nn.Dropout(0.5)))
        fit(model, deterministic=True, callbacks=[Asked()])
        return weights(model)

    assert torch.equal(trained(), trained())
    assert asked == [True] * 8


class RootOfZero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (0 * x).sqrt()


@pytest.mark.switch("works", "detect_anomaly=True")
@pytest.mark.filterwarnings("ignore:Error detected in MulBackward0")  # what the switch is for
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.filterwarnings("ignore:FGSM.*gradient is zero or NaN")
@pytest.mark.filterwarnings("ignore:val. the logits of 200 predictions are not finite")
def test_detect_anomaly() -> None:
    model = module(net(RootOfZero()))
    fit(model)
    assert weights(model).isnan().any()
    with pytest.raises(RuntimeError, match="'MulBackward0' returned nan values"):
        fit(module(net(RootOfZero())), detect_anomaly=True)


@pytest.mark.switch("works", "profiler=simple")
def test_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(module(), profiler="simple")
    assert len(run.profiler.recorded_durations["[Strategy]SingleDeviceStrategy.training_step"]) == 4
    assert len(run.profiler.recorded_durations["[Strategy]SingleDeviceStrategy.backward"]) == 4


@pytest.mark.switch("works", "barebones=True")
@pytest.mark.filterwarnings("ignore:You are trying to `self.log..` but `Trainer.barebones=True.`")  # said by Lightning
def test_barebones(tmp_path: Path) -> None:
    model = module()
    before = weights(model)
    run = Trainer(accelerator="cpu", barebones=True, max_epochs=1, limit_train_batches=4, limit_val_batches=1)
    run.fit(model, datamodule=DigitsDataModule())
    assert run.global_step == 4
    assert run.callback_metrics == {}
    assert not torch.equal(weights(model), before)
    assert files(tmp_path) == []


@pytest.mark.filterwarnings("ignore:You are trying to `self.log..` but `Trainer.barebones=True.`")  # said by Lightning
def test_barebones_by_command(command: Command, tmp_path: Path) -> None:
    off = [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing")]
    command("--trainer.barebones=true", *off, "--trainer.log_every_n_steps=null", "--callbacks.early_stopping=null")
    assert files(tmp_path) == []
