"""How a network runs: contexts that change it and restore everything afterwards, and whether it is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise as in the current mode, but keep every running statistic unchanged."""
    # In train mode these layers use the batch's statistics either way; the flag only decides on the update.
    layers: list[Any] = [m for m in model.modules() if m.training and getattr(m, "track_running_stats", False)]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run in eval mode, then restore the mode of every sub-module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile(module)` made this module, or `module.compile()` compiled it in place."""
    return hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
