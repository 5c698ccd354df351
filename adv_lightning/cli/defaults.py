"""What the commands' trainers have where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins import CheckpointIO

from adv_lightning.callbacks import TimedProgressBar
from adv_lightning.callbacks.checkpoint_io import WholeCheckpointIO
from adv_lightning.cli.runs import RunLogger


def default_logger(config: Mapping[str, Any], run: Path | None = None, step: int = 0) -> RunLogger | None:
    """Return a TensorBoard logger without a placeholder metric; None where the configuration speaks of a logger.

    Args:
        config: The trainer's.
        run: Folder of the run that goes on. None: a new one.
        step: Where it goes on. What was logged from there on is shown no more, since it is logged again.
    """
    if config.get("logger") not in (None, True):
        return None
    if run is None:
        return RunLogger(config.get("default_root_dir") or ".", default_hp_metric=False)
    return RunLogger(run.parents[1], name=run.parent.name, version=run.name, default_hp_metric=False, purge_step=step)


def default_plugins(given: Any) -> list[Any]:
    """Return the plugins `given`, with the project's writer of checkpoints if there is none among them."""
    plugins = given if isinstance(given, list) else [] if given is None else [given]
    return plugins if any(isinstance(each, CheckpointIO) for each in plugins) else [*plugins, WholeCheckpointIO()]


def default_bar(config: Mapping[str, Any], given: Sequence[Callback]) -> list[Callback]:
    """Return the project's progress bar, or nothing where one is given or none is wanted."""
    shown = config.get("enable_progress_bar") is not False and not config.get("barebones")
    return [TimedProgressBar()] if shown and not any(isinstance(callback, ProgressBar) for callback in given) else []
