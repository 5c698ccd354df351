"""A user's project in another folder trains through the command line, on one process and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adv_lightning.__main__ import run
from adv_lightning.evaluation.from_checkpoint import load_module
from tests.conftest import ROOT

PROJECT = ROOT / "tests" / "support" / "user_project"
WORDS = [
    *("fit", "--model=mypackage.Mine", "--model.smoothing=0.2"),
    *("--model.backbone=mypackage.BatchNormNet", "--model.backbone.hidden=40"),
    *("--model.attack=FGSM", "--model.attack.eps=0.1", "--data=mypackage.DictData"),
    *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=5", "--trainer.accelerator=cpu"),
    *("--test_after_fit=true", "--trainer.enable_progress_bar=false"),
]


def check(folder: Path, processes: int) -> None:
    version = folder / "lightning_logs" / "version_0"
    record = json.loads((version / "metrics.json").read_text())
    assert record["processes"] == processes
    assert [row["name"] for row in record["test"]] == ["clean", "FGSM", "PGD", "worst case"]
    assert {row["n"] for row in record["test"]} == {496}
    clean, fgsm, *_ = (row["error"] for row in record["test"])
    assert clean < 0.6  # chance is 0.9
    assert clean < fgsm
    checkpoint = torch.load(version / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["_class_path"] == "mypackage.Mine"
    assert checkpoint["hyper_parameters"]["smoothing"] == 0.2


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROJECT)
    monkeypatch.chdir(tmp_path)
    assert run([*WORDS, "--trainer.devices=1"]) == 0
    check(tmp_path, 1)
    again = load_module("lightning_logs/version_0/checkpoints/best.ckpt")
    assert (type(again).__name__, again.smoothing) == ("Mine", 0.2)


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adv_lightning", *WORDS, "--trainer.devices=2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path, 2)
