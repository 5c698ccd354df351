"""Best and last checkpoints."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from adv_lightning.callbacks.monitor import ADV_ERROR, available, check_start, is_fresh


class AdversarialCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, of the lowest adversarial validation error, and `last.ckpt`.

    Without an attack, watches `val/error`.

    Args:
        monitor: Key of the figure to watch. Null: keep the last only.
        mode: "min" where lower is better, "max" where higher is.
        filename: Name of the best checkpoint, without ".ckpt".
        save_last: Keep `last.ckpt` too.
        save_top_k: Number of best checkpoints to keep.
        start_epoch: First epoch, counted from 0, that may be best; see AdversarialEarlyStopping. A run that ends
            before it keeps the last only.
        **kwargs: As for Lightning's ModelCheckpoint.

    Raises:
        ValueError: start_epoch is negative.
    """

    def __init__(
        self,
        monitor: str | None = ADV_ERROR,
        mode: str = "min",
        filename: str = "best",
        save_last: bool = True,
        save_top_k: int = 1,
        start_epoch: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename=filename,
            save_last=save_last,
            save_top_k=save_top_k if monitor is not None else 0,
            **kwargs,
        )
        self.start_epoch = check_start(start_epoch)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.monitor = available(self.monitor, pl_module)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_fresh(self.monitor, pl_module, self.start_epoch):
            super().on_train_epoch_end(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_fresh(self.monitor, pl_module, self.start_epoch):
            super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning forgets it here
            super().on_train_end(trainer, pl_module)

    def _save_last(self, trainer: Trainer) -> None:
        """Save the last, where Lightning has not: it does so only beside a best one."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
