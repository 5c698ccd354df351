"""A progress bar that does not slow training."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT


class TimedProgressBar(RichProgressBar):
    """Lightning's Rich bar, redrawn in training at most ten times a second, and after the last batch of an epoch.

    Lightning's own bar is redrawn after every batch. Each time it reads all metrics that it shows from the device,
    which is slow compared with a step of a small network.

    Args:
        **kwargs: As for Lightning's RichProgressBar.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[TimedProgressBar()])
    """

    interval = 0.1
    """Least time between two drawings, in seconds."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._drawn = -math.inf

    def say(self, text: str | None) -> None:
        """Describe the current work in the bar of validation or test. None: restore the former description."""
        for task, before in (
            (self.test_progress_bar_id, self.test_description),
            (self.val_progress_bar_id, self.validation_description),
        ):
            if self.progress is not None and task is not None:
                self.progress.update(task, description=text or before)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._drawn >= self.interval or trainer.is_last_batch:
            self._drawn = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
