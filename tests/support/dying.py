"""Accidents of one of several processes, for tests/cli/test_processes.py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer


class Dies(Callback):
    """Ends the process `rank`, in the way `how`: in the second epoch's third batch or validation, or at the end."""

    def __init__(self, rank: int, where: Literal["train", "validation", "end"], how: Literal["kill", "raise"]) -> None:
        self.rank, self.where, self.how = rank, where, how

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (self.where, trainer.current_epoch, batch_idx) == ("train", 1, 2):
            self._die(trainer)

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if (self.where, trainer.current_epoch) == ("validation", 1):
            self._die(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.where == "end":
            self._die(trainer)

    def _die(self, trainer: Trainer) -> None:
        if trainer.global_rank != self.rank:
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("this process ends here")


class Late(Callback):
    """Keeps the second process busy for a while after the test, and then writes the file `late`."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if (trainer.global_rank, stage) == (1, "test"):
            time.sleep(3)
            Path("late").touch()
