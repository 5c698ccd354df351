"""Changed settings of the optimizer and the scheduler, when a run resumes from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import ChainedScheduler, CyclicLR, OneCycleLR, SequentialLR

from adv_lightning.methods.checkpoint_kinds import NUMBER, Kind, check_kinds, mapping

_Settings = dict[str, Any]


class GivenSettings(Callback):
    """Makes a resumed run use the learning rate, momentum and other settings that it was given.

    Lightning restores the settings of the optimizer and the scheduler together with their state, so
    `--model.optimizer.lr=0.01` has no effect beside a checkpoint. With this callback, a setting wins if it differs from
    the one given to the run that wrote the checkpoint. If a schedule has changed the learning rate since, the new rate
    is scaled by the same factor. Settings are numbers, strings and collections of them.

    All else stays as in the checkpoint: settings that were not changed, schedules that compute their course in advance
    (OneCycleLR, CyclicLR), and schedules of another class than before.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GivenSettings()])
    """

    def __init__(self) -> None:
        self._given: dict[str, _Settings] = {}
        self._before: dict[str, _Settings] = {}
        self._file: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning restores the state after this hook.
        self._given = {place: _plain_values(each) for place, each in _settings(trainer).items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before, self._before = self._before, {}
        for place, settings in _settings(trainer).items():
            then, now = before.get(place, {}), self._given.get(place, {})
            for name in now.keys() & then.keys():
                if now[name] == then[name]:
                    continue
                scaled = name == "lr" and NUMBER.fits(then[name]) and then[name] and settings[name] != then[name]
                settings[name] = settings[name] * now[name] / then[name] if scaled else now[name]
                if name not in ("initial_lr", "base_lrs"):
                    rank_zero_info(
                        f"Training continues with {name} {settings[name]}: it was given as {then[name]} before, and "
                        f"as {now[name]} now."
                    )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._file = trainer.ckpt_path

    def state_dict(self) -> dict[str, Any]:
        return {"given": self._given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_kinds(state_dict, {"given": mapping(mapping(_PLAIN))}, "the state of GivenSettings", self._file)
        self._before = state_dict["given"]


def _settings(trainer: Trainer) -> dict[str, _Settings]:
    """Return the mappings that hold the settings, to change in place: parameter groups and schedulers' attributes."""
    found = {
        f"optimizer {i}, group {j}": group
        for i, optimizer in enumerate(trainer.optimizers)
        for j, group in enumerate(optimizer.param_groups)
    }
    for i, config in enumerate(trainer.lr_scheduler_configs):
        found |= _scheduler_settings(config.scheduler, f"scheduler {i}")
    return found


def _scheduler_settings(scheduler: Any, place: str) -> dict[str, _Settings]:
    if isinstance(scheduler, OneCycleLR | CyclicLR):
        return {}
    found = {f"{place}, {type(scheduler).__name__}": vars(scheduler)}
    inners = scheduler._schedulers if isinstance(scheduler, SequentialLR | ChainedScheduler) else ()
    for i, inner in enumerate(inners):
        found |= _scheduler_settings(inner, f"{place}.{i}")
    return found


def _plain_values(settings: Mapping[str, Any]) -> _Settings:
    return {name: value for name, value in settings.items() if _is_plain(value) and not name.startswith("_")}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | Mapping):
        return all(_is_plain(each) for each in (value.values() if isinstance(value, Mapping) else value))
    return value is None or isinstance(value, bool | int | float | str)


_PLAIN = Kind("numbers, strings and collections of them", _is_plain)
