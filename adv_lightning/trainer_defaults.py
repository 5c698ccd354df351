"""What the commands' trainers have where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from adv_lightning.callbacks import TimedProgressBar


def default_logger(config: Mapping[str, Any]) -> TensorBoardLogger | None:
    """Return a TensorBoard logger without a placeholder metric; None where the configuration speaks of a logger."""
    if config.get("logger") not in (None, True):
        return None
    return TensorBoardLogger(config.get("default_root_dir") or ".", default_hp_metric=False)


def default_bar(config: Mapping[str, Any], given: Sequence[Callback]) -> list[Callback]:
    """Return the project's progress bar, or nothing where one is given or none is wanted."""
    shown = config.get("enable_progress_bar") is not False and not config.get("barebones")
    return [TimedProgressBar()] if shown and not any(isinstance(callback, ProgressBar) for callback in given) else []
