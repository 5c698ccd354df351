"""A command leaves the process as it was."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.cli import main
from adv_lightning.cli.process_state import restored
from adv_lightning.data import DigitsDataModule
from tests.conftest import ROOT
from tests.support.helpers import quiet_trainer

DIGITS = f"--config={ROOT / 'configs' / 'digits.yaml'}"
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
SHORT += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--callbacks.pictures=null"]


def state() -> dict[str, Any]:
    return {
        "filters of warnings": list(warnings.filters),
        "how a warning is shown": warnings.showwarning,
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (threading.excepthook, sys.excepthook),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "levels": {name: logging.getLogger(name).level for name in (None, "lightning", "lightning.pytorch", "torch")},
        "folder": Path.cwd(),
    }


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return state()


@pytest.mark.slow
def test_main_leaves_the_process(before: dict[str, Any]) -> None:
    main(["fit", DIGITS, *SHORT, "--test_after_fit=true"])
    assert state() == before
    main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"])
    main(["test", "--ckpt_path=best", *SHORT[-3:]])
    main(["predict", "--ckpt_path=last", *SHORT[-3:]])
    main(["refit", "--run=lightning_logs/version_0"])
    assert state() == before
    nets = "[lightning_logs/version_0/checkpoints/best.ckpt,lightning_logs/version_0/checkpoints/last.ckpt]"
    main(["compare", f"--checkpoints={nets}", "--names=[a,b]", "--trainer.enable_progress_bar=false"])
    assert state() == before


@pytest.mark.parametrize("words", [["--model.alhpa=1"], ["--data=MNISTDataModule", "--data.root=nowhere"]])
def test_a_refused_command_leaves_it(words: list[str], before: dict[str, Any]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", DIGITS, *SHORT, *words])
    assert state() == before


def test_a_run_that_fails_leaves_it(before: dict[str, Any]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", DIGITS, *SHORT, "--model.optimizer.lr=1e38"])  # the loss becomes infinite
    assert stop.value.code == 2
    assert state() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_data_module_leaves_it(fails: bool, before: dict[str, Any]) -> None:
    class Fails(AdversarialModule):
        def on_train_epoch_start(self) -> None:
            if fails:
                raise RuntimeError("on purpose")

    seen: list[Any] = []

    class Looks(DigitsDataModule):
        def train_dataloader(self) -> Any:
            seen.extend(warnings.filters)
            return super().train_dataloader()

    def fit(trainer: Trainer) -> None:
        trainer.fit(Fails(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), FGSM(0.1)), datamodule=data)

    data = Looks(val_size=0)
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            fit(quiet_trainer(limit_train_batches=1))
    else:
        fit(quiet_trainer(limit_train_batches=1))
    assert state() == before
    assert len(seen) > len(before["filters of warnings"])  # silenced in the run alone
    data.setup("fit")  # of no run, which would not end
    assert state() == before


def test_restores_environment_and_filters(before: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    expected = state()

    def change() -> None:
        with restored():
            os.environ.update({"KEPT": "2", "NEW": "3"})
            warnings.simplefilter("ignore")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()
    assert state() == expected


SCRIPT = """
import atexit, sys
import torch.distributed as dist
from adv_lightning.cli import main

atexit.register(lambda: print("at exit:", dist.is_initialized()))
main(sys.argv[1:])
print("after the command:", dist.is_initialized())
"""


@pytest.mark.slow
def test_a_process_group_is_destroyed_at_exit(tmp_path: Path) -> None:
    """Threads of gloo that live on while Python shuts down abort the process now and then."""
    words = ["fit", DIGITS, *SHORT, "--trainer.strategy=ddp", "--trainer.devices=1", "--trainer.accelerator=cpu"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["after the command: True", "at exit: False"]
