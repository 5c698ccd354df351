"""Defaults of the commands' trainers: logger, callbacks and plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar, Timer
from lightning.pytorch.plugins import CheckpointIO

from adv_lightning.callbacks import GivenSettings, TimedProgressBar
from adv_lightning.callbacks.checkpoint_io import WholeCheckpointIO
from adv_lightning.cli.runs import RunLogger
from adv_lightning.cli.terminal import default_summary


def default_logger(config: Mapping[str, Any], run: Path | None = None, step: int = 0) -> RunLogger | None:
    """Return a TensorBoard logger without a placeholder metric; None if the configuration has a logger.

    Args:
        config: The trainer's arguments.
        run: Folder of the run that continues. None: a new run.
        step: Step at which it continues. Later entries in the log are hidden, since they are logged again.
    """
    if config.get("logger") not in (None, True):
        return None
    if run is None:
        return RunLogger(config.get("default_root_dir") or ".", default_hp_metric=False)
    return RunLogger(run.parents[1], name=run.parent.name, version=run.name, default_hp_metric=False, purge_step=step)


def default_plugins(given: Any) -> list[Any]:
    """Return the given plugins, with the project's CheckpointIO unless there is one among them."""
    plugins = given if isinstance(given, list) else [] if given is None else [given]
    return plugins if any(isinstance(each, CheckpointIO) for each in plugins) else [*plugins, WholeCheckpointIO()]


def default_callbacks(config: Mapping[str, Any], given: Sequence[Callback]) -> list[Callback]:
    """Return what every run has: the terminal's bar and table, a clock, and what continues with the given settings."""
    shown = [*default_bar(config, given), *default_summary(config, given)]
    return [*shown, Timer(duration=config.get("max_time")), GivenSettings()]


def default_bar(config: Mapping[str, Any], given: Sequence[Callback]) -> list[Callback]:
    """Return the project's progress bar, or nothing if there is one already or none is wanted."""
    shown = config.get("enable_progress_bar") is not False and not config.get("barebones")
    return [TimedProgressBar()] if shown and not any(isinstance(callback, ProgressBar) for callback in given) else []
