"""A linear schedule of the optimizer's momentum."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer


class MomentumSchedule(Callback):
    """Moves the momentum of the optimizer linearly from `start` to `end` over `epochs` epochs, then keeps it.

    Args:
        start: Momentum in the first epoch, in [0, 1).
        end: Momentum from epoch number `epochs` on, counted from 0, in [0, 1).
        epochs: Length of the ramp in epochs, at least 1.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: the optimizer has no momentum, when training starts.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[MomentumSchedule(start=0.5, end=0.9, epochs=20)])
    """

    def __init__(self, start: float = 0.5, end: float = 0.7, epochs: int = 250) -> None:
        for name, value in (("start", start), ("end", end)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value!r}: give a momentum in [0, 1)")
        if epochs < 1:
            raise ValueError(f"epochs={epochs!r}: give at least 1")
        self.start, self.end, self.epochs = start, end, epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            if any("momentum" not in group for group in optimizer.param_groups):
                raise TypeError(
                    f"MomentumSchedule: {type(optimizer).__name__} has no momentum. Use torch.optim.SGD, or remove "
                    "MomentumSchedule (callbacks.momentum=null)"
                )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        momentum = self.start + (self.end - self.start) * min(1.0, trainer.current_epoch / self.epochs)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["momentum"] = momentum
