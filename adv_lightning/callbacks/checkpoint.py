"""Best and last checkpoints.

Length: one callback of Lightning's, with what it must do differently in each of its hooks.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable
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

from adv_lightning.callbacks.monitor_key import ADV_ERROR, available_monitor, check_start_epoch, judged_on
from adv_lightning.callbacks.monitor_watch import MonitorWatch
from adv_lightning.callbacks.run_folder import run_folder
from adv_lightning.callbacks.stored_paths import (
    BEST,
    found_again,
    is_inside,
    is_of_run,
    is_same,
    run_mark,
    stored_paths,
    with_paths,
)
from adv_lightning.methods.checkpoint_kinds import check_kinds


class AdversarialCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, with the lowest adversarial validation error, and `last.ckpt`.

    Without an attack, `val/error` is watched. `last.ckpt` is written after every epoch and every `last_every_n_steps`
    steps, so kill -9 loses at most that many steps and a validation. With one process it is also written when training
    is interrupted by SIGTERM or Ctrl-C. Ctrl-C lets the batch finish first; a second Ctrl-C stops at once. A run that
    is resumed in another folder keeps the best score and the path of its checkpoint, if it validates on the same images
    under the same attack. A validation that does not measure the metric is not judged by what an earlier one measured.
    Whatever a checkpoint that a run continues from says, no file is removed or replaced but checkpoints of this run.

    Args:
        monitor: Key of the metric to watch. Null: keep only the last checkpoint.
        mode: "min" if lower is better, "max" if higher is better.
        filename: Name of the best checkpoint, without ".ckpt".
        save_last: Also keep `last.ckpt`.
        save_top_k: Number of best checkpoints to keep.
        start_epoch: First epoch, counted from 0, that may be best; see AdversarialEarlyStopping. A run that ends
            before it keeps only the last checkpoint. A run that resumes before it forgets the best one so far.
        last_every_n_steps: Write `last.ckpt` every n optimizer steps. Null: only after epochs.
        **kwargs: As for Lightning's ModelCheckpoint.

    Raises:
        ValueError: `start_epoch` is negative, `last_every_n_steps` is below 1, or `save_last` is "link"; when a run is
            resumed, the callback's state in the checkpoint is damaged.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[AdversarialCheckpoint(last_every_n_steps=100)])
    """

    fell_back = False
    """Whether the clean error is watched because no attack judges the module."""

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
            raise ValueError(f"save_last={save_last!r}: give true or false; a link to the best is not the last")
        if last_every_n_steps is not None and last_every_n_steps < 1:
            raise ValueError(
                f"last_every_n_steps={last_every_n_steps}: give at least 1, or null to write after epochs only"
            )
        self.start_epoch = check_start_epoch(start_epoch)
        self.last_every_n_steps = last_every_n_steps
        self._interrupted = self._stopping = False
        self._handler: Any = None
        self._judged_on = ""
        self._watch = MonitorWatch()
        self._run = ""
        self._marks: set[str] = set()
        self._written: set[str] = set()
        self._replaces = False
        self._measured_only = False
        self._file: str | Path | None = None
        self._agreed: Callable[[Any], Any] = _own
        self._epoch_over = False
        self._last_written: tuple[int, bool] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.monitor = available_monitor(self, trainer, pl_module)
        self._judged_on = judged_on(trainer, pl_module)
        super().setup(trainer, pl_module, stage)
        self._run = run_mark(run_folder(trainer), self.dirpath)
        self._marks = {self._run}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path is None and trainer.global_step == 0 and self.best_model_path + self.last_model_path:
            # The callback has served another training, whose files stay.
            self.last_model_path, self._last_written, self._written = "", None, set()
            self._reset_best()
        if trainer.current_epoch < self.start_epoch:
            self._reset_best()  # a resumed run may bring a best checkpoint from an epoch that does not count now
        given = Path(trainer.ckpt_path or "")
        if not self.last_model_path and given.name == "last.ckpt" and is_same(given.parent, self.dirpath):
            # The run continues in its folder under another monitor, so its state was not found.
            self.last_model_path = os.path.join(str(self.dirpath), given.name)  # as Lightning writes it
        self._interrupted = self._stopping = False
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_over = False
        self._stop_if_interrupted()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._stop_if_interrupted()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        self._measured_only = True  # Lightning would take what a validation of earlier weights measured
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._measured_only = False
        loop, fetcher, every = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher, self.last_every_n_steps
        # max_steps and max_time may end training within an epoch.
        ending = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if not (self._interrupted or ending or (every is not None and trainer.global_step % every == 0)):
            return
        # If validation or the end of the epoch comes next, last.ckpt is written after that.
        if not trainer.is_last_batch and fetcher and not loop._should_check_val_fx(fetcher):
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_over = True
        if self._watch.is_fresh(self.monitor, pl_module, self.start_epoch):
            super().on_train_epoch_end(trainer, pl_module)
            self._save_deferred(trainer)
        self._watch.take()
        if trainer.is_last_batch:  # else a resumed run would skip the rest of the epoch
            self._save_last(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.start_validation(trainer, self.monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.end_validation(trainer, self.monitor)
        fresh = not trainer.sanity_checking and self._watch.is_fresh(self.monitor, pl_module, self.start_epoch)
        if fresh:
            if self._watch.judges_others(self.monitor, pl_module):
                self._forget("which was judged on other examples")
            super().on_validation_end(trainer, pl_module)
        if trainer.sanity_checking or trainer.is_last_batch:
            return  # the end of the epoch comes next
        if fresh and self._should_save_on_train_epoch_end(trainer) and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if fresh:
            self._watch.take()
        self._save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handler()
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning does not check it here
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handler()
        super().on_exception(trainer, pl_module, exception)
        # Lightning raises SIGTERMException between batches. A checkpoint from within a validation is not written: the
        # resumed run would skip the rest of it. Nor is one with several processes, which may be at different batches.
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and trainer.training:
            self._save_last(trainer)

    def state_dict(self) -> dict[str, Any]:
        state = {**super().state_dict(), "judged_on": self._judged_on, "run": self._run}
        return state if self._watch.examples is None else {**state, "judged_examples": self._watch.examples}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._file, self._agreed = trainer.ckpt_path, trainer.strategy.broadcast

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_kinds(state_dict, BEST, f"the state of {type(self).__name__}", self._file)
        # Lightning drops the best score if a run is resumed in another folder, or if its folder was moved.
        folders = (self.dirpath, self._file and Path(self._file).parent)
        # The processes must agree, and may not see the same files.
        now = self._agreed({path: found_again(path, folders) for path in stored_paths(state_dict)})
        state = with_paths(state_dict, now, smallest=self.mode == "min", kept=self.save_top_k)
        if state_dict.get("run") and self._file and is_same(Path(self._file).parent, self.dirpath):
            self._marks.add(state_dict["run"])  # the run was asked to continue among its own files
        last = state["last_model_path"]
        if self._agreed(is_inside(last, self.dirpath) and not self._is_own(last)):
            state["last_model_path"] = ""  # another run's, which is not to be replaced
        self._agreed = _own
        super().load_state_dict({"kth_value": self.kth_value, **state, "dirpath": self.dirpath})
        self.current_score = state_dict.get("current_score")  # Lightning saves it, but does not restore it
        self._watch.resume(state_dict.get("judged_examples"))
        before, last = state_dict.get("judged_on") or self._judged_on, state["last_model_path"]
        if (best := state_dict.get("best_model_path")) and not now[best]:
            self._forget(f"{best}, which is not there")
        elif before != self._judged_on:
            self._forget(f"which was judged on {before}")
        elif last and is_same(Path(last).parent, self.dirpath):
            self._replaces = True  # the run's own files of the same name

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        # Lightning does not follow `..` and links, and lets any address pass.
        kept = any(is_same(previous, path) for path in (current, trainer.ckpt_path))
        inside = is_inside(previous, self.dirpath) and not kept
        return inside and self._is_own(previous) and super()._should_remove_checkpoint(trainer, previous, current)

    def _save_deferred(self, trainer: Trainer) -> None:
        """Keep the best, if `every_n_train_steps` or `train_time_interval` asked for it before it was measured."""
        if self._defer_save_until_validation and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._defer_save_until_validation = False

    def _is_own(self, path: str) -> bool:
        """Whether this run wrote a file. A folder is for the strategy to judge, and an address cannot be read."""
        return path in self._written or "://" in path or Path(path).is_dir() or is_of_run(path, self._marks)

    def _get_metric_interpolated_filepath_name(
        self, monitor_candidates: dict[str, Tensor], trainer: Trainer, del_filepath: str | None = None
    ) -> str:
        # Lightning replaces the file that is dropped, if the new one has its name.
        foreign = trainer.is_global_zero and bool(del_filepath) and not self._is_own(str(del_filepath))
        dropped = None if trainer.strategy.reduce_boolean_decision(foreign, all=False) else del_filepath
        return super()._get_metric_interpolated_filepath_name(monitor_candidates, trainer, dropped)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._written.add(filepath)

    def file_exists(self, filepath: str | Path, trainer: Trainer) -> bool:
        """Return whether a file must stay, so that a new one gets another name."""
        found = super().file_exists(filepath, trainer)
        if not (found and self._replaces):
            return found
        stays = trainer.is_global_zero and not self._is_own(str(filepath))
        return trainer.strategy.reduce_boolean_decision(stays, all=False)

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
        found = super()._monitor_candidates(trainer)
        if self._measured_only and self._watch.is_stale(trainer, self.monitor):
            del found[self.monitor or ""]
        return found

    def _forget(self, which: str) -> None:
        rank_zero_info(f"Forgetting the former best checkpoint, {which}.")
        self._reset_best()
        self._replaces = False  # the former file stays

    def _reset_best(self) -> None:
        self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""
        self.best_model_score = self.current_score = None
        self.kth_value = torch.tensor(math.inf if self.mode == "min" else -math.inf)

    def _save_last(self, trainer: Trainer) -> None:
        """Write last.ckpt, unless Lightning just has: it does so only together with a best checkpoint."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        # A checkpoint holds no gradients, so a run resumed within an accumulated step would differ.
        if trainer.fast_dev_run or not fitting or trainer.fit_loop._should_accumulate():  # type: ignore[attr-defined]
            return
        if self._last_written != self._progress(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._stopping = self._interrupted

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        self._last_written = self._progress(trainer)

    def _progress(self, trainer: Trainer) -> tuple[int, bool]:
        """Return the number of steps, and whether the epoch is over."""
        return trainer.global_step, self._epoch_over

    def _stop_if_interrupted(self) -> None:
        """Stop after an interrupt, once last.ckpt is written and the metrics of its step are logged."""
        if self._stopping:
            if self.last_model_path:
                rank_zero_info(f"Wrote {self.last_model_path}. To continue from it, run fit with --ckpt_path=last.")
            raise KeyboardInterrupt

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        # Not print: the signal may have interrupted a write to Python's own stream.
        os.write(2, b"\nInterrupted: training stops once last.ckpt is written. Press Ctrl-C again to stop at once.\n")

    def _restore_handler(self) -> None:
        """Restore the former handler of Ctrl-C, unless Lightning has replaced ours to ignore further ones."""
        if self._handler is not None and signal.getsignal(signal.SIGINT) == self._on_interrupt:
            signal.signal(signal.SIGINT, self._handler)
        self._handler = None


def _own(value: Any) -> Any:
    """Return what this process found, where there is no other to agree with."""
    return value
