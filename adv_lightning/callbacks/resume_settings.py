"""Settings of the optimizer and the scheduler that are given now, over those that a checkpoint brings back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

_Settings = dict[str, Any]


class GivenSettings(Callback):
    """Lets a resumed run train with the learning rate, the momentum and so on that it is given.

    Lightning brings back the optimizer's and the scheduler's settings with their state, so that
    `--model.optimizer.lr=0.01` beside a checkpoint has no effect. Here a setting that was given otherwise than to the
    run that wrote the checkpoint wins; a learning rate that a schedule has changed since keeps its proportion. Settings
    are numbers and words, and collections of them. What was not changed stays as it was in the checkpoint, as does a
    schedule that has worked out its course beforehand (OneCycleLR, CyclicLR), and one of another kind than before.
    """

    def __init__(self) -> None:
        self._given: dict[str, _Settings] = {}
        self._before: dict[str, _Settings] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The state comes back after this.
        self._given = {place: _plain(each) for place, each in _settings(trainer).items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before, self._before = self._before, {}
        for place, settings in _settings(trainer).items():
            then, now = before.get(place, {}), self._given.get(place, {})
            for name in now.keys() & then.keys():
                if now[name] == then[name]:
                    continue
                scaled = name == "lr" and then[name] and settings[name] != then[name]
                settings[name] = settings[name] * now[name] / then[name] if scaled else now[name]
                if name not in ("initial_lr", "base_lrs"):
                    rank_zero_info(
                        f"{name} is {settings[name]} from here on: given as {now[name]}, before {then[name]}."
                    )

    def state_dict(self) -> dict[str, Any]:
        return {"given": self._given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["given"]


def _settings(trainer: Trainer) -> dict[str, _Settings]:
    """Return what holds the settings, to be changed in place: parameter groups, and schedulers' attributes."""
    found = {
        f"optimizer {i}, group {j}": group
        for i, optimizer in enumerate(trainer.optimizers)
        for j, group in enumerate(optimizer.param_groups)
    }
    for i, config in enumerate(trainer.lr_scheduler_configs):
        found |= _of_schedule(config.scheduler, f"scheduler {i}")
    return found


def _of_schedule(scheduler: Any, place: str) -> dict[str, _Settings]:
    if isinstance(scheduler, OneCycleLR | CyclicLR):
        return {}
    found = {f"{place}, {type(scheduler).__name__}": vars(scheduler)}
    for i, inner in enumerate(getattr(scheduler, "_schedulers", ())):  # of a sequence or a chain
        found |= _of_schedule(inner, f"{place}.{i}")
    return found


def _plain(settings: Mapping[str, Any]) -> _Settings:
    return {name: value for name, value in settings.items() if _is_plain(value) and not name.startswith("_")}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | Mapping):
        return all(_is_plain(each) for each in (value.values() if isinstance(value, Mapping) else value))
    return value is None or isinstance(value, bool | int | float | str)
