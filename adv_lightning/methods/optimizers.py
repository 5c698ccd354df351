"""Optimizer and scheduler from their factories, as Lightning wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer


def build_optimizers(
    parameters: Iterable[nn.Parameter],
    optimizer_factory: Callable[[list[nn.Parameter]], Optimizer],
    scheduler_factory: Callable[[Optimizer], Any] | None = None,
    interval: str = "epoch",
) -> Any:
    """Return what `LightningModule.configure_optimizers` returns.

    Args:
        parameters: All parameters; the frozen ones are left out.
        optimizer_factory: Parameters -> optimizer.
        scheduler_factory: Optimizer -> learning-rate scheduler. None: constant.
        interval: Whether the scheduler steps every "epoch" or every "step".

    Raises:
        ValueError: no parameter requires a gradient, or the optimizer or scheduler refuses its arguments.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        raise ValueError(
            "no parameter requires a gradient, so there is nothing to train. Lightning's BackboneFinetuning freezes "
            "all of `backbone`, which is the whole network here: freeze some of its layers with your own "
            "BaseFinetuning, or keep the head outside `backbone` in a subclass with its own forward"
        )
    try:
        optimizer = optimizer_factory(trainable)
        scheduler = None if scheduler_factory is None else scheduler_factory(optimizer)
    except ValueError as error:
        raise ValueError(f"cannot build the optimizer or the scheduler: {error}") from error
    if scheduler is None:
        return optimizer
    config = {"scheduler": scheduler, "interval": interval}
    if hasattr(scheduler, "monitor"):
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}
