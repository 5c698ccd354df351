"""A user's project in another folder trains through the command line, on one process and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

COMMAND = [
    *(sys.executable, "-m", "adv_lightning", "fit"),
    *("--model=mypackage.Mine", "--model.smoothing=0.2"),
    *("--model.backbone=mypackage.BatchNormNet", "--model.backbone.hidden=40"),
    *("--model.attack=FGSM", "--model.attack.eps=0.1", "--data=mypackage.DictData"),
    *("--trainer.max_epochs=2", "--trainer.log_every_n_steps=5", "--trainer.accelerator=cpu"),
    *("--test_after_fit=true", "--trainer.enable_progress_bar=false"),
]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_trains_by_dotted_path(processes: int, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "user_project"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*COMMAND, f"--trainer.devices={processes}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "lightning_logs" / "version_0"
    record = json.loads((run / "metrics.json").read_text())
    assert record["processes"] == processes
    assert [row["name"] for row in record["test"]] == ["clean", "FGSM", "PGD", "worst case"]
    assert {row["n"] for row in record["test"]} == {496}
    clean, fgsm, *_ = (row["error"] for row in record["test"])
    assert clean < 0.6  # chance is 0.9
    assert clean < fgsm
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["_class_path"] == "mypackage.Mine"
    assert checkpoint["hyper_parameters"]["smoothing"] == 0.2
