"""Best and last checkpoints."""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from adv_lightning.callbacks.monitor import ADV_ERROR, available, check_start, is_fresh, judged_on


class AdversarialCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, of the lowest adversarial validation error, and `last.ckpt`.

    Without an attack, watches `val/error`. `last.ckpt` is written after every epoch, every `last_every_n_steps` steps,
    and in one process when training is interrupted: by SIGTERM, and by Ctrl-C, which lets the batch end first (a second
    one does not wait). So kill -9 loses that many steps, and a validation, at most. A run that goes on in another
    folder keeps its best figure and where that checkpoint is, if it is judged on the same images under the same attack.

    Args:
        monitor: Key of the figure to watch. Null: keep the last only.
        mode: "min" where lower is better, "max" where higher is.
        filename: Name of the best checkpoint, without ".ckpt".
        save_last: Keep `last.ckpt` too.
        save_top_k: Number of best checkpoints to keep.
        start_epoch: First epoch, counted from 0, that may be best; see AdversarialEarlyStopping. A run that ends
            before it keeps the last only, and one that goes on forgets a best epoch from before.
        last_every_n_steps: Write `last.ckpt` after every so many optimizer steps. Null: after epochs alone.
        **kwargs: As for Lightning's ModelCheckpoint.

    Raises:
        ValueError: start_epoch is negative, last_every_n_steps less than 1, or save_last a link.
    """

    def __init__(
        self,
        monitor: str | None = ADV_ERROR,
        mode: str = "min",
        filename: str = "best",
        save_last: bool = True,
        save_top_k: int = 1,
        start_epoch: int = 0,
        last_every_n_steps: int | None = 500,
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
        if save_last not in (True, False):
            raise ValueError(f"save_last={save_last!r}: give true or false; a link to the best would not be the last")
        if last_every_n_steps is not None and last_every_n_steps < 1:
            raise ValueError(f"last_every_n_steps={last_every_n_steps}: give at least 1, or null for epochs alone")
        self.start_epoch = check_start(start_epoch)
        self.last_every_n_steps = last_every_n_steps
        self._interrupted = self._stopping = False
        self._handler: Any = None
        self._judged_on = ""
        self._epoch_over = False
        self._written: tuple[int, bool] | None = None  # the step of the last, and whether its epoch was over

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.monitor = available(self.monitor, pl_module)
        self._judged_on = judged_on(trainer, pl_module)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.current_epoch < self.start_epoch:
            self._forget()  # a run that goes on may bring a best along, of an epoch that does not count now
        self._interrupted = self._stopping = False
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_over = False
        self._stop()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._stop()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        loop, fetcher, every = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher, self.last_every_n_steps
        ending = loop._is_training_done or trainer.should_stop  # max_steps and max_time may end it in mid-epoch
        if not (self._interrupted or ending or (every is not None and trainer.global_step % every == 0)):
            return
        # Where validation or the end of the epoch follows, the last is written after that.
        if not trainer.is_last_batch and fetcher and not loop._should_check_val_fx(fetcher):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_over = True
        if is_fresh(self.monitor, pl_module, self.start_epoch):
            super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_last_batch:  # else Lightning would take an epoch that was broken off for one that is over
            self._save_last(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        fresh = is_fresh(self.monitor, pl_module, self.start_epoch)
        if fresh:
            super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or trainer.is_last_batch:
            return  # the end of the epoch follows
        if fresh and self._should_save_on_train_epoch_end(trainer) and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._give_back()
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning forgets it here
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._give_back()
        super().on_exception(trainer, pl_module, exception)
        # Lightning raises it between batches, of validation too, whose rest a run that goes on would leave out. Several
        # processes may be at different batches.
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and trainer.training:
            self._save_last(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "judged_on": self._judged_on}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best figure of a run that goes on in another folder, or whose folder was moved.
        state = {**state_dict, "dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = self._found(state.get(key, ""))
        state["best_k_models"] = {self._found(path): each for path, each in state.get("best_k_models", {}).items()}
        super().load_state_dict(state)
        self.current_score = state.get("current_score")  # Lightning keeps it, and does not read it
        if state.get("judged_on", self._judged_on) != self._judged_on:
            rank_zero_info(f"The best is sought anew: before, it was judged on {state['judged_on']}.")
            self._forget()
            return
        if Path(state["last_model_path"]).parent == Path(self.dirpath or ""):
            # The files there are of this run, so that one of the same name is to be replaced.
            self._enable_version_counter = False

    def _found(self, path: str) -> str:
        """Return where a checkpoint is now: in this run's folder, if that was moved."""
        here = Path(self.dirpath or "", Path(path).name)
        return str(here) if path and not Path(path).is_file() and here.is_file() else path

    def _forget(self) -> None:
        """Forget the best."""
        self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""
        self.best_model_score = self.current_score = None
        self.kth_value = torch.tensor(math.inf if self.mode == "min" else -math.inf)

    def _save_last(self, trainer: Trainer) -> None:
        """Save the last, where Lightning has not: it does so only beside a best one."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        # A checkpoint holds no gradients, so one within an accumulated step would not go on exactly.
        if trainer.fast_dev_run or not fitting or trainer.fit_loop._should_accumulate():  # type: ignore[attr-defined]
            return
        if self._written != self._place(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._stopping = self._interrupted

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        self._written = self._place(trainer)

    def _place(self, trainer: Trainer) -> tuple[int, bool]:
        return trainer.global_step, self._epoch_over

    def _stop(self) -> None:
        """Stop where what belongs to the checkpoint has been logged too."""
        if self._stopping:
            if self.last_model_path:
                rank_zero_info(f"{self.last_model_path} is written; fit with --ckpt_path=last goes on from it.")
            raise KeyboardInterrupt

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        # Past Python's streams, which the signal may have come in the middle of.
        os.write(2, b"\nInterrupted: training stops as soon as last.ckpt is written. Once more to stop at once.\n")

    def _give_back(self) -> None:
        """Let Ctrl-C do what it did before, unless Lightning has it ignored by now."""
        if self._handler is not None and signal.getsignal(signal.SIGINT) == self._on_interrupt:
            signal.signal(signal.SIGINT, self._handler)
        self._handler = None
