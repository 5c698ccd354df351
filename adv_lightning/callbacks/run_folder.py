"""The folder of a run, and pictures, whatever the logger."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger


def run_folder(trainer: Trainer) -> str | None:
    """Return the folder that every file of a run goes to: the one that also has its `checkpoints`.

    A logger without a folder of its own for each run, such as W&B's or MLflow's, gets `NAME/VERSION` in its `save_dir`,
    or in the trainer's `default_root_dir` if it writes elsewhere. Every process must ask: rank zero's is broadcast.

    Returns:
        None in a `fast_dev_run`. Without a logger, the trainer's `default_root_dir`.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    # In a fast_dev_run Lightning's own logger stands in for all, and nothing is written.
    brief: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # set by the debugging connector
    if logger is None or brief or getattr(logger, "log_dir", None) is not None:
        return trainer.log_dir
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    folder = Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)
    found: str = trainer.strategy.broadcast(str(folder))
    return found


def takes_pictures(logger: Logger) -> bool:
    """Whether `show_png` shows anything in a logger."""
    return isinstance(logger, TensorBoardLogger) or hasattr(logger, "log_image") or _is_mlflows(logger)


def _is_mlflows(logger: Logger) -> bool:
    return hasattr(logger, "run_id") and hasattr(getattr(logger, "experiment", None), "log_image")


def show_png(logger: Logger, name: str, png: bytes, step: int = 0) -> None:
    """Show the content of a PNG file in the logger's own way; a logger that has none is passed over.

    Args:
        logger: TensorBoard's; one with Lightning's `log_image`, such as W&B's, Neptune's or Comet's; or MLflow's.
        name: Its name there.
        png: The file's content.
        step: Optimizer step that it belongs to.
    """
    import numpy as np
    from PIL import Image  # here, as checkpoints and early stopping need no pictures

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
    elif hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[picture], step=step)
    elif _is_mlflows(logger):
        mlflow: Any = logger
        mlflow.experiment.log_image(mlflow.run_id, picture, f"{name.replace(' ', '_')}.png")
