"""Settings of the optimizer and the scheduler that are given now, over those that a checkpoint brings back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

_Settings = list[dict[str, Any]]


class GivenSettings(Callback):
    """Lets a resumed run train with the learning rate, the momentum and so on that it is given.

    Lightning brings back the optimizer's and the scheduler's settings with their state, so that
    `--model.optimizer.lr=0.01` beside a checkpoint has no effect. Here a setting that was given otherwise than to the
    run that wrote the checkpoint wins; a learning rate that a schedule has changed since keeps its proportion. Settings
    are numbers and words, and collections of them. What was not changed stays as it was in the checkpoint.
    """

    def __init__(self) -> None:
        self._given: _Settings = []
        self._before: _Settings | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The state comes back after this.
        self._given = [_plain(each) for each in _settings(trainer)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before, self._before = self._before, None
        if before is None or len(before) != len(self._given):
            return
        for settings, then, now in zip(_settings(trainer), before, self._given, strict=True):
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


def _settings(trainer: Trainer) -> _Settings:
    """Return what holds the settings, to be changed in place: each parameter group, and each scheduler's attributes."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return [*groups, *(vars(config.scheduler) for config in trainer.lr_scheduler_configs)]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if _is_plain(value) and not name.startswith("_")}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | Mapping):
        return all(_is_plain(each) for each in (value.values() if isinstance(value, Mapping) else value))
    return value is None or isinstance(value, bool | int | float | str)
