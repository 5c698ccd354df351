"""The validation metric that early stopping and checkpoints watch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

ADV_ERROR = "val/adv_error"
CLEAN_ERROR = "val/error"

CHOICE = ("val_size", "split", "split_seed", "classes")
"""The arguments of a data module that choose its validation images."""


def available_monitor(callback: Any, trainer: Trainer, pl_module: LightningModule) -> str | None:
    """Return the callback's monitor, or the clean error if no attack judges the module.

    Only the first callback of the trainer that falls back to the clean error says so.

    Args:
        callback: Has `monitor`, and `fell_back`, which is set to true if the clean error is returned.
        trainer: The callback's trainer.
        pl_module: The module that is trained.
    """
    monitor: str | None = callback.monitor
    if monitor is None or not monitor.startswith("val/adv") or getattr(pl_module, "val_attack", None) is not None:
        return monitor
    said = any(getattr(each, "fell_back", False) for each in trainer.callbacks)  # type: ignore[attr-defined]
    callback.fell_back = True
    if not said:
        rank_zero_info(f"No attack judges the network, so {CLEAN_ERROR} is watched instead of {monitor}.")
    return CLEAN_ERROR


def has_validation(trainer: Trainer) -> bool:
    """Whether this run validates, as far as is known when training starts."""
    # With check_val_every_n_epoch, Lightning sets up the validation loader only when it is needed.
    unknown = trainer.check_val_every_n_epoch != 1
    return trainer.limit_val_batches != 0 and (unknown or sum(trainer.num_val_batches) > 0)


def judged_on(trainer: Trainer, pl_module: LightningModule) -> str:
    """Describe the attack and the images of the validation. Scores with different descriptions are not comparable."""
    attack, data = getattr(pl_module, "val_attack", None), getattr(trainer, "datamodule", None)
    chosen = {name: data.hparams[name] for name in CHOICE if name in data.hparams} if data is not None else {}
    # An attack that is crafted on the network in a file is another one with another file.
    named = [getattr(each, "checkpoint", None) for each in attack.modules()] if attack is not None else []
    sources = "".join(f", {_digest(path)}" for path in named if isinstance(path, str) and Path(path).is_file())
    return f"{attack!r}{sources}, {type(data).__name__} {chosen}"


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def check_start_epoch(start_epoch: int) -> int:
    """Return `start_epoch`.

    Raises:
        ValueError: it is negative.
    """
    if start_epoch < 0:
        raise ValueError(f"start_epoch={start_epoch}: give 0 or more")
    return start_epoch
