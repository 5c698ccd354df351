"""Early stopping on the adversarial validation error."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info

from adv_lightning.callbacks.monitor import ADV_ERROR, available, check_start, has_validation, is_fresh, judged_on


class AdversarialEarlyStopping(EarlyStopping):
    """Stops when the adversarial validation error has not improved for `patience` checks.

    The clean validation error is flat long before the adversarial one is (Goodfellow et al. 2015, section 6).
    `best_epoch`, counted from 0, is the epoch of the best figure: retraining on all data takes best_epoch + 1
    epochs. A validation that did not measure the figure is no check. Without an attack, watches `val/error`.

    Args:
        monitor: Key of the figure to watch.
        patience: Checks without improvement after which training stops; a check is one validation that measures
            the figure.
        min_delta: Least change that counts as an improvement.
        mode: "min" where lower is better, "max" where higher is.
        start_epoch: First epoch, counted from 0, that is watched. The error under FGSM swings from epoch to epoch, and
            its lowest may come early by luck, while the clean error is still falling.
        **kwargs: As for Lightning's EarlyStopping.

    Raises:
        ValueError: start_epoch is negative, or a number of Lightning's is out of range.
    """

    def __init__(
        self,
        monitor: str = ADV_ERROR,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "min",
        start_epoch: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(monitor=monitor, patience=patience, min_delta=min_delta, mode=mode, **kwargs)
        self.start_epoch = check_start(start_epoch)
        self.best_epoch: int | None = None
        self._judged_on = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.monitor = available(self.monitor, pl_module) or self.monitor
        self._judged_on = judged_on(trainer, pl_module)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to watch a validation that does not run.

        Raises:
            ValueError: there is no validation.
        """
        if self.strict and self.monitor.startswith("val/") and not has_validation(trainer):
            raise ValueError(
                f"{type(self).__name__} watches {self.monitor}, and there is no validation: give it examples "
                "(val_size, limit_val_batches), or leave early stopping out (callbacks.early_stopping=null)"
            )
        if trainer.current_epoch < self.start_epoch:
            self._forget()  # a run that goes on may bring a figure along, of an epoch that does not count now
        reached = self.stopping_threshold is not None and self.monitor_op(
            self.best_score, torch.tensor(self.stopping_threshold, device=self.best_score.device)
        )
        if self.wait_count >= self.patience or reached:
            # The run was over, and was resumed: Lightning remembers the counter, but not that it stopped.
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # An epoch that is broken off, as by max_steps, has no figure of its own.
        if trainer.is_last_batch and is_fresh(self.monitor, pl_module, self.start_epoch):
            before = self.best_score.clone()
            super().on_train_epoch_end(trainer, pl_module)
            self._remember(trainer, before)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_fresh(self.monitor, pl_module, self.start_epoch):
            before = self.best_score.clone()
            super().on_validation_end(trainer, pl_module)
            self._remember(trainer, before)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why training stopped, if it did, and which epoch was best."""
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            reason = (self.stopping_reason_message or "").removesuffix(" Signaling Trainer to stop.")
            rank_zero_info(f"Stopped after epoch {self.stopped_epoch}: {reason}")
        if self.best_epoch is not None:
            rank_zero_info(f"Best {self.monitor}: {self.best_score.item():.4f} in epoch {self.best_epoch}.")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best_epoch": self.best_epoch, "judged_on": self._judged_on}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning takes over the patience too, against what was asked for now.
        super().load_state_dict({**state_dict, "patience": self.patience})
        self.best_epoch = state_dict.get("best_epoch")
        before = state_dict.get("judged_on", self._judged_on)
        self._judged_on = self._judged_on or before
        if before != self._judged_on:
            self._forget()

    def _forget(self) -> None:
        self.wait_count, self.best_epoch = 0, None
        self.best_score = torch.full_like(self.best_score, math.inf if self.mode == "min" else -math.inf)

    def _remember(self, trainer: Trainer, before: Any) -> None:
        current = trainer.callback_metrics.get(self.monitor, self.best_score)
        reached = self.stopping_reason is EarlyStoppingReason.STOPPING_THRESHOLD
        if reached and self.monitor_op(current, self.best_score.to(current.device)):
            self.best_score = current.squeeze()  # Lightning stops without looking whether the figure is the best
        if self.best_score.to(before.device) != before:
            self.best_epoch = trainer.current_epoch
