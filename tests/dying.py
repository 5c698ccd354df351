"""A callback that ends one of several processes, for tests/test_dead_process.py."""

from __future__ import annotations

import os
import signal
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer


class Dies(Callback):
    """Ends the process `rank`, in the way `how`, at the point `where`; `train` is the third batch of the second epoch."""

    def __init__(self, rank: int, where: Literal["start", "train", "validation"], how: Literal["kill", "raise"]) -> None:
        self.rank, self.where, self.how = rank, where, how
        if where == "start":
            self._die(int(os.environ.get("LOCAL_RANK", 0)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.where == "train" and (trainer.current_epoch, batch_idx) == (1, 2):
            self._die(trainer.global_rank)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self.where == "validation" and trainer.current_epoch == 1:
            self._die(trainer.global_rank)

    def _die(self, rank: int) -> None:
        if rank != self.rank:
            return
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("this process ends here")
