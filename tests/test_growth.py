"""Long runs in small: nothing grows over 2,000 epochs but the log, and that by what is stated."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

ROOT = Path(__file__).parents[1]
EPOCHS = 2000


class Measure(Callback):
    """Writes memory, open files, and the sizes of a run's files every 500 epochs."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch % 500 or trainer.log_dir is None:
            return
        gc.collect()
        for logger in trainer.loggers:
            logger.save()
        sizes = {path.name: path.stat().st_size for path in Path(trainer.log_dir).rglob("*") if path.is_file()}
        figures = {
            "epoch": trainer.current_epoch,
            "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            "open": len(os.listdir("/proc/self/fd")),
            "log": sum(size for name, size in sizes.items() if name.startswith("events")),
            "other": sum(size for name, size in sizes.items() if not name.startswith("events")),
            "files": len(sizes),
        }
        with Path(trainer.default_root_dir, "measured.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and open files are read from /proc")
def test_two_thousand_epochs_of_a_tiny_run(tmp_path: Path) -> None:
    words = [
        f"--config={ROOT / 'configs' / 'digits.yaml'}",
        "--model.backbone.units=4",
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1",
        f"--trainer.max_epochs={EPOCHS + 1}",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        f"--callbacks.early_stopping.patience={EPOCHS}",
        "--trainer.callbacks+=tests.test_growth.Measure",
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
    # Twelve scalars an epoch, and a picture of the attack every fifth.
    assert 0 < (end["log"] - start["log"]) / (EPOCHS - 500) < 12_000
