"""What the callbacks that watch a validation figure watch by default."""

from __future__ import annotations

from weakref import WeakSet

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

ADV_ERROR = "val/adv_error"
CLEAN_ERROR = "val/error"

_CHOICE = ("val_size", "split", "split_seed", "classes")
"""What chooses the validation images of a data module."""
_told: WeakSet[LightningModule] = WeakSet()


def available(monitor: str | None, pl_module: LightningModule) -> str | None:
    """Return `monitor`, or the clean error, said once, where nothing attacks the module."""
    if monitor is None or not monitor.startswith("val/adv") or getattr(pl_module, "val_attack", None) is not None:
        return monitor
    if pl_module not in _told:
        _told.add(pl_module)
        rank_zero_info(f"No attack judges the network, so {CLEAN_ERROR} is watched instead of {monitor}.")
    return CLEAN_ERROR


def has_validation(trainer: Trainer) -> bool:
    """Whether this run validates, as far as is known: where epochs are left out, the loader is asked for late."""
    late = trainer.check_val_every_n_epoch != 1
    return trainer.limit_val_batches != 0 and (late or sum(trainer.num_val_batches) > 0)


def judged_on(trainer: Trainer, pl_module: LightningModule) -> str:
    """Say what the figures of validation are measured on and under: those of others are not to be compared with."""
    attack, data = getattr(pl_module, "val_attack", None), getattr(trainer, "datamodule", None)
    chosen = {name: data.hparams[name] for name in _CHOICE if name in data.hparams} if data is not None else {}
    return f"{attack!r}, {type(data).__name__} {chosen}"


def check_start(start_epoch: int) -> int:
    """Return `start_epoch`.

    Raises:
        ValueError: it is negative.
    """
    if start_epoch < 0:
        raise ValueError(f"start_epoch={start_epoch}: give 0 or more")
    return start_epoch


def is_fresh(monitor: str | None, pl_module: LightningModule, start_epoch: int = 0) -> bool:
    """Whether this epoch's validation measured `monitor`, and it counts.

    A figure under attack may be measured less often, and counts from `start_epoch`.
    """
    if pl_module.current_epoch < start_epoch:
        return False
    if not (monitor or "").startswith("val/"):
        return True
    attacked = not (monitor or "").startswith("val/adv") or getattr(pl_module, "judged_under_attack", True)
    return attacked and has_validation(pl_module.trainer)
