"""Memory, open files and file sizes of a long run."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer


class Measure(Callback):
    """Writes these figures to measured.jsonl every 500 epochs."""

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
