"""Early stopping on the adversarial validation error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from adv_lightning.callbacks.monitor_key import (
    ADV_ERROR,
    available_monitor,
    check_start_epoch,
    has_validation,
    judged_on,
)
from adv_lightning.callbacks.monitor_watch import MonitorWatch
from adv_lightning.methods.checkpoint_kinds import COUNT, SCORE, TEXT, Kind, check_kinds, optional

_REASONS = [reason.value for reason in EarlyStoppingReason]
_STATE = {
    "wait_count": COUNT,
    "stopped_epoch": COUNT,
    "best_score": SCORE,
    "stopping_reason": optional(Kind(f"one of {_REASONS}", lambda value: type(value) is int and value in _REASONS)),
    "stopping_reason_message": optional(TEXT),
    "best_epoch": optional(COUNT),
    "judged_on": optional(TEXT),
    "judged_examples": optional(TEXT),
}


class AdversarialEarlyStopping(EarlyStopping):
    """Stops training when the adversarial validation error has not improved for `patience` checks.

    The clean validation error becomes flat long before the adversarial error does (Goodfellow et al. 2015, section 6).
    `best_epoch`, counted from 0, is the epoch with the best score: to retrain on all data, train for best_epoch + 1
    epochs. A validation that does not measure the metric is not a check. Without an attack, `val/error` is watched.

    Args:
        monitor: Key of the metric to watch.
        patience: Number of checks without improvement after which training stops. A check is one validation that
            measures the metric.
        min_delta: Smallest change that counts as an improvement.
        mode: "min" if lower is better, "max" if higher is better.
        start_epoch: First epoch, counted from 0, that is watched. The error under FGSM swings from epoch to epoch, and
            may by luck be lowest early, while the clean error is still falling.
        **kwargs: As for Lightning's EarlyStopping.

    Raises:
        ValueError: when built, `start_epoch` is negative; when training starts, there is no validation; when a run is
            resumed, the callback's state in the checkpoint is damaged.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[AdversarialEarlyStopping(patience=5)])
    """

    fell_back = False
    """Whether the clean error is watched because no attack judges the module."""

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
        self.start_epoch = check_start_epoch(start_epoch)
        self.best_epoch: int | None = None
        self._judged_on = ""
        self._watch = MonitorWatch()
        self._file: str | Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.monitor = available_monitor(self, trainer, pl_module) or self.monitor
        self._judged_on = judged_on(trainer, pl_module)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is a validation, and stop a resumed run that had stopped.

        Raises:
            ValueError: there is no validation.
        """
        if self.strict and self.monitor.startswith("val/") and not has_validation(trainer):
            raise ValueError(
                f"{type(self).__name__} watches {self.monitor}, but there is no validation: give it examples "
                "(val_size, limit_val_batches), or remove early stopping (callbacks.early_stopping=null)"
            )
        if trainer.ckpt_path is None and trainer.global_step == 0:
            self._reset_best()  # the callback may have served another training
            self.stopped_epoch, self.stopping_reason = 0, EarlyStoppingReason.NOT_STOPPED
        if trainer.current_epoch < self.start_epoch:
            self._reset_best()  # a resumed run may bring a score from an epoch that does not count now
        reached = self.stopping_threshold is not None and self.monitor_op(
            self.best_score, torch.tensor(self.stopping_threshold, device=self.best_score.device)
        )
        if self.wait_count >= self.patience or reached:
            # The run had stopped before it was resumed. Lightning restores the counter, but not that.
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # An epoch that ends early, for example by max_steps, has no score of its own.
        if trainer.is_last_batch and self._watch.is_fresh(self.monitor, pl_module, self.start_epoch):
            before = self.best_score.clone()
            super().on_train_epoch_end(trainer, pl_module)
            self._update_best(trainer, before)
        self._watch.take()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.start_validation(trainer, self.monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.end_validation(trainer, self.monitor)
        if trainer.sanity_checking or not self._watch.is_fresh(self.monitor, pl_module, self.start_epoch):
            return
        if self._watch.judges_others(self.monitor, pl_module):
            rank_zero_info(f"Forgetting the former best {self.monitor}, which was judged on other examples.")
            self._reset_best()
        before = self.best_score.clone()
        super().on_validation_end(trainer, pl_module)
        self._update_best(trainer, before)

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        super()._run_early_stopping_check(trainer)
        self._watch.take()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why training stopped, if it stopped early, and which epoch was best."""
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            reason = (self.stopping_reason_message or "").removesuffix(" Signaling Trainer to stop.")
            rank_zero_info(f"Stopped after epoch {self.stopped_epoch}: {reason}")
        if self.best_epoch is not None:
            rank_zero_info(f"Best {self.monitor}: {self.best_score.item():.4f} in epoch {self.best_epoch}.")

    def state_dict(self) -> dict[str, Any]:
        state = {**super().state_dict(), "best_epoch": self.best_epoch, "judged_on": self._judged_on}
        return state if self._watch.examples is None else {**state, "judged_examples": self._watch.examples}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._file = trainer.ckpt_path

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_kinds(state_dict, _STATE, f"the state of {type(self).__name__}", self._file)
        # Lightning would restore the patience too, and override the one given now.
        given = {k: v for k, v in state_dict.items() if v is not None or k != "stopping_reason"}
        super().load_state_dict({**given, "patience": self.patience})
        self.best_epoch = state_dict.get("best_epoch")
        self._watch.resume(state_dict.get("judged_examples"))
        before = state_dict.get("judged_on") or self._judged_on
        self._judged_on = self._judged_on or before
        if before != self._judged_on:
            self._reset_best()

    def _reset_best(self) -> None:
        self.wait_count, self.best_epoch = 0, None
        self.best_score = torch.full_like(self.best_score, math.inf if self.mode == "min" else -math.inf)

    def _update_best(self, trainer: Trainer, before: Tensor) -> None:
        current = trainer.callback_metrics.get(self.monitor, self.best_score)
        reached = self.stopping_reason is EarlyStoppingReason.STOPPING_THRESHOLD
        if reached and self.monitor_op(current, self.best_score.to(current.device)):
            self.best_score = current.squeeze()  # at the threshold Lightning stops without updating the best score
        if self.best_score.to(before.device) != before:
            self.best_epoch = trainer.current_epoch
