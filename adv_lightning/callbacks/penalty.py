"""A term added to the objective, outside the attack's gradient."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from adv_lightning.callbacks._module import adversarial


class Term(Callback):
    """Adds `term` to the module's objective while it is fitted. Base class of penalties; override `term`.

    Raises:
        TypeError: the module is no AdversarialModule.
    """

    _added: Callable[[Tensor], Tensor] | None = None

    def term(self, pl_module: LightningModule) -> Callable[[Tensor], Tensor]:
        """Return x, [B, ...] -> what is added to the objective, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define term(pl_module)")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._added = self.term(pl_module)
        adversarial(pl_module, self).terms.append(self._added)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._take_back(pl_module)

    def _take_back(self, pl_module: LightningModule) -> None:
        if self._added is not None:
            adversarial(pl_module, self).terms.remove(self._added)
            self._added = None
