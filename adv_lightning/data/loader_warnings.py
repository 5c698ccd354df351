"""Lightning's warnings of loaders that do not apply to this package's, silenced for the length of a run."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerStatus

_MESSAGES = (
    ".*does not have many workers.*",  # each batch is one gather, so workers would have nothing to do
    "Total length of .list. across ranks is zero",  # an empty list as validation loader is intended
)


class LoaderWarnings:
    """The warnings, silenced between `silence` and `restore`."""

    def __init__(self) -> None:
        self._filters = ExitStack()

    def __reduce__(self) -> Any:
        # Lightning's weight averaging copies the module with its trainer and data. A copy silences nothing.
        return type(self), ()

    def silence(self, trainer: Trainer | None) -> None:
        """Silence the warnings if the trainer is running: only then is it certain that `restore` will be called."""
        if trainer is not None and trainer.state.status == TrainerStatus.RUNNING:
            self.restore()
            self._filters.enter_context(warnings.catch_warnings())
            for message in _MESSAGES:
                warnings.filterwarnings("ignore", message)

    def restore(self) -> None:
        """Put the filters of warnings back."""
        self._filters.close()
