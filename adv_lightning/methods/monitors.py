"""Lightning's own callbacks and schedulers that watch a figure which not every epoch measures."""

from __future__ import annotations

import math
from typing import Any


def check_monitors(trainer: Any, attacked_every: int | None) -> None:
    """Refuse what would wait for a figure of an attack in vain, or take a former one for today's.

    This project's early stopping and checkpoint look only when the figure is measured.

    Args:
        trainer: Lightning's trainer, with its callbacks and schedulers set up.
        attacked_every: Number of epochs from one attacked validation to the next. None: no validation is attacked.

    Raises:
        ValueError: a callback or scheduler of Lightning's watches such a figure more often; the message says which.
    """
    if attacked_every == 1:
        return
    for what, monitor, every in _watching(trainer):
        if monitor is None or not monitor.startswith("val/adv") or (attacked_every and every % attacked_every == 0):
            continue
        if attacked_every is None:
            raise ValueError(
                f"{what} watches {monitor}, but no attack judges the network: give it a val_attack, or watch val/error"
            )
        raise ValueError(
            f"{what} watches {monitor} every {_epochs(every)}, but it is measured every {_epochs(attacked_every)} "
            f"(val_attack_every_n_epochs={attacked_every}): use AdversarialEarlyStopping or AdversarialCheckpoint, "
            f"watch val/error, or set val_attack_every_n_epochs to 1"
        )


def _watching(trainer: Any) -> list[tuple[str, str | None, int]]:
    """Return name, monitor, and how many epochs lie between two looks, of all that belong to Lightning or torch."""
    found: list[tuple[str, str | None, int]] = []
    validated = trainer.check_val_every_n_epoch or 1
    for callback in trainer.callbacks:
        # `fell_back` is this project's; `strict` EarlyStopping's; `save_top_k` ModelCheckpoint's.
        if hasattr(callback, "monitor") and not hasattr(callback, "fell_back") and getattr(callback, "strict", True):
            every = validated
            if hasattr(callback, "save_top_k"):  # it looks after a validation, unless it was told to look after epochs
                own = max(callback._every_n_epochs, 1)
                every = own if callback._save_on_train_epoch_end else math.lcm(own, validated)
            found.append((type(callback).__name__, callback.monitor, every))
    schedulers = [each for each in trainer.lr_scheduler_configs if each.reduce_on_plateau and each.strict]
    return found + [(type(each.scheduler).__name__, each.monitor, each.frequency) for each in schedulers]


def _epochs(number: int) -> str:
    return "epoch" if number == 1 else f"{number} epochs"
