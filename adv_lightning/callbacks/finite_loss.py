"""An end to training when the loss is NaN or infinite."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from adv_lightning.callbacks._layer_names import adversarial

_TERMS = ("loss", "clean_loss", "adv_loss")


class NotFiniteError(ArithmeticError):
    """A training loss, or a weight, is NaN or infinite."""


class FiniteLoss(Callback):
    """Ends training when the loss is NaN or infinite, and names the batch and the term.

    Lightning continues with such a loss, and early stopping on an error rate does not notice it. Lightning's
    `detect_anomaly` does, but it slows every step.

    To avoid waiting for the device in every step, the losses are checked only every `every_n_batches` batches and at
    the end of an epoch. The weights, and the buffers that were finite at the start, such as running statistics, are
    checked at the end of an epoch, before validation and before a checkpoint is written. So a checkpoint never contains
    weights that have become NaN or infinite, and earlier checkpoints are kept. One exception: a weights-only checkpoint
    in mid-epoch, of which Lightning does not tell callbacks.

    A GradScaler (precision 16-mixed) skips steps that overflow. With one, training ends only when `every_n_batches`
    losses in a row are not finite.

    Args:
        every_n_batches: Number of batches between two checks, at least 1.

    Raises:
        ValueError: `every_n_batches` is below 1.
        NotFiniteError: in training, a loss or a weight is not finite.
        TypeError: the module is not an AdversarialModule.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[FiniteLoss()])
    """

    changes_training = False

    def __init__(self, every_n_batches: int = 50) -> None:
        if every_n_batches < 1:
            raise ValueError(f"every_n_batches={every_n_batches!r}: give at least 1")
        self.every_n_batches = every_n_batches
        self._seen: list[tuple[str, tuple[Tensor | None, ...]]] = []
        self._buffers: set[str] = set()  # those that were finite at the start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = []
        # A network may have infinity in a buffer on purpose, such as a mask.
        buffers = [(name, b) for name, b in pl_module.named_buffers() if b.is_floating_point()]
        self._buffers = {name for name, buffer in buffers if buffer.isfinite().all()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        self._seen.append((f"batch {batch_idx} of epoch {trainer.current_epoch}", adversarial(pl_module, self).newest))
        if trainer.is_last_batch:
            self._check_all(trainer, pl_module)
        elif len(self._seen) >= self.every_n_batches:
            self._check_losses(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # a network that is only judged may be as it is
            self._check_all(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_all(trainer, pl_module)

    def _check_all(self, trainer: Trainer, module: LightningModule) -> None:
        self._check_losses(trainer)
        buffers = [(name, buffer) for name, buffer in module.named_buffers() if name in self._buffers]
        named = [(name, tensor.isfinite().all()) for name, tensor in (*module.named_parameters(), *buffers)]
        if named and not torch.stack([finite for _, finite in named]).all():
            name = next(name for name, finite in named if not finite)
            raise NotFiniteError(
                f"{name} has values that are NaN or infinite after epoch {trainer.current_epoch}, so no checkpoint was "
                f"written. {_advice(trainer)}"
            )

    def _check_losses(self, trainer: Trainer) -> None:
        skips = getattr(trainer.precision_plugin, "scaler", None) is not None
        if skips and len(self._seen) < self.every_n_batches:
            return
        seen, self._seen = self._seen, []
        totals = [losses[0] for _, losses in seen if losses and losses[0] is not None]
        finite = torch.stack(totals).isfinite() if totals else torch.ones(1, dtype=torch.bool)
        bad = bool(~finite.any() if skips else ~finite.all())
        if not trainer.strategy.reduce_boolean_decision(bad, all=False):
            return
        if not bad:
            raise NotFiniteError(f"the loss is not finite in another process. {_advice(trainer)}")
        place, losses = seen[int((~finite).nonzero()[0])]
        values = {name: loss.item() for name, loss in zip(_TERMS, losses, strict=True) if loss is not None}
        said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise NotFiniteError(f"the loss is not finite: {said} in {place} (counted from 0). {_advice(trainer)}")


def _advice(trainer: Trainer) -> str:
    checkpoint: Any = trainer.checkpoint_callback
    path = getattr(checkpoint, "last_model_path", "") or getattr(checkpoint, "best_model_path", "")
    kept = f"The last checkpoint is {path}." if path else "No earlier checkpoint exists."
    return f"{kept} Look for NaN in the data, or try a lower learning rate or --trainer.gradient_clip_val=1"
