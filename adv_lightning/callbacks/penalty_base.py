"""A term that is added to the objective, outside the attack's gradient."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from adv_lightning.callbacks._layer_names import adversarial


class Term(Callback):
    """Adds `term` to the module's objective during fit. Base class of penalties; override `term`.

    Raises:
        TypeError: the module is not an AdversarialModule.
    """

    _added: Callable[[Tensor], Tensor] | None = None

    def term(self, pl_module: LightningModule) -> Callable[[Tensor], Tensor]:
        """Return a function from the inputs x, [B, ...], to the scalar that is added to the objective."""
        raise NotImplementedError(f"{type(self).__name__} must define term(pl_module)")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._added = self.term(pl_module)
        adversarial(pl_module, self).terms.append(self._added)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove(pl_module)

    def _remove(self, pl_module: LightningModule) -> None:
        if self._added is not None:
            adversarial(pl_module, self).terms.remove(self._added)
            self._added = None
