"""Nothing grows over 2,000 epochs but the log, and that no faster than docs/reliability.md says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EPOCHS = 2000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and open files are read from /proc")
def test_two_thousand_epochs(tmp_path: Path) -> None:
    words = [
        f"--config={ROOT / 'configs' / 'digits.yaml'}",
        "--model.backbone.units=4",
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1",
        f"--trainer.max_epochs={EPOCHS + 1}",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        f"--callbacks.early_stopping.patience={EPOCHS}",
        "--trainer.callbacks+=tests.support.measure.Measure",
        "--test_after_fit=false",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    subprocess.run(
        [sys.executable, "-m", "adv_lightning", "fit", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=True,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    lines = (tmp_path / "measured.jsonl").read_text(encoding="utf-8").splitlines()
    print("\n".join(lines))
    measured = {figures["epoch"]: figures for figures in map(json.loads, lines)}
    start, end = measured[500], measured[EPOCHS]
    assert end["open"] <= start["open"]
    assert end["files"] == start["files"]
    assert end["other"] - start["other"] < 2000  # numbers with more digits
    assert end["resident"] - start["resident"] < 10e6
    # Twelve scalars an epoch, and a picture of the attack (55 kB) every fifth.
    assert 0 < (end["log"] - start["log"]) / (EPOCHS - 500) < 16_000
