"""Optimizer and scheduler from their factories, as Lightning wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from adv_lightning.attacks.plain_values import imported

NESTED = "schedulers"
"""The argument of SequentialLR and ChainedScheduler that takes other schedulers, of the same optimizer."""


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
        scheduler_factory: Optimizer -> learning-rate scheduler. None: constant. A `partial` of SequentialLR or
            ChainedScheduler may hold factories as its `schedulers`; they get the optimizer too.
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
        scheduler = None if scheduler_factory is None else _scheduler(scheduler_factory, optimizer)
    except ValueError as error:
        raise ValueError(f"cannot build the optimizer or the scheduler: {error}") from error
    if scheduler is None:
        return optimizer
    config = {"scheduler": scheduler, "interval": interval}
    if hasattr(scheduler, "monitor"):
        config["monitor"] = scheduler.monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def check_factories(optimizer: Any, lr_scheduler: Any) -> None:
    """Raise TypeError unless both are classes, functions or partials of them; the scheduler may be None."""
    for name, value, example in (
        ("optimizer", optimizer, "torch.optim.SGD, lr=0.1"),
        ("lr_scheduler", lr_scheduler, "torch.optim.lr_scheduler.StepLR, step_size=10"),
    ):
        if not callable(value) and not (value is None and name == "lr_scheduler"):
            given = repr(value) if isinstance(value, str) else f"a {type(value).__name__} that is built already"
            raise TypeError(f"{name} is {given}: pass a class, or functools.partial({example})")


def _scheduler(factory: Callable[[Optimizer], Any], optimizer: Optimizer) -> Any:
    inner = factory.keywords.get(NESTED) if isinstance(factory, partial) else None
    if not isinstance(inner, list | tuple):
        return factory(optimizer)
    built = [each if isinstance(each, LRScheduler) else _scheduler(each, optimizer) for each in inner]
    again: Callable[..., Any] = factory
    return again(optimizer=optimizer, schedulers=built)  # ChainedScheduler takes them the other way round


def described_scheduler(described: Any) -> Any:
    """Return the factory that stored settings of a nested scheduler describe; other settings as they are.

    Raises:
        TypeError: a class in them is no scheduler.
    """
    arguments = described.get("init_args") if isinstance(described, dict) else None
    if not isinstance(arguments, dict) or NESTED not in arguments:
        return described
    return _described(described)


def _described(described: dict[str, Any]) -> Any:
    kind = imported(described["class_path"])
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
        raise TypeError(f"{described['class_path']} is no LRScheduler")
    arguments = dict(described.get("init_args") or {})
    if NESTED in arguments:
        arguments[NESTED] = [_described(each) for each in arguments[NESTED]]
    return partial(kind, **arguments)
