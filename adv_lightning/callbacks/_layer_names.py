"""Checks of the module and of layer names that several callbacks share."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule
from torch import nn

from adv_lightning.module import AdversarialModule


def adversarial(module: LightningModule, callback: Callback) -> AdversarialModule:
    """Return `module` after checking that it is an AdversarialModule.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(module, AdversarialModule):
        name = type(callback).__name__
        raise TypeError(
            f"{name} needs an AdversarialModule, got {type(module).__name__}: subclass AdversarialModule, or remove "
            f"{name}"
        )
    return module


def layer_names(layers: list[str]) -> list[str]:
    """Return `layers` after checking that it is a list of different names.

    Raises:
        ValueError: it is empty, is not a list, or contains a name twice.
    """
    if not layers or isinstance(layers, str):
        raise ValueError(f"layers={layers!r}: give a list of dotted names of layers, such as [net.maxout1]")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers={layers!r}: give each layer only once")
    return layers


def named_layers(
    backbone: nn.Module, names: list[str], suits: Callable[[nn.Module], bool] = lambda layer: True, kind: str = ""
) -> list[nn.Module]:
    """Return the backbone's layers with these dotted names.

    Args:
        backbone: The network. It is not a layer itself, so the empty name is refused.
        names: The dotted names.
        suits: Whether a layer may be chosen.
        kind: Describes the layers that may be chosen in the error, after "layer of the backbone".

    Raises:
        ValueError: the backbone has no layer of a name, or the layer may not be chosen.
    """
    known = {name: layer for name, layer in backbone.named_modules() if name and suits(layer)}
    for name in names:
        if name not in known:
            choice = f"choose from {', '.join(known)}" if known else "the backbone has none"
            raise ValueError(f"layers has {name!r}, which is not a layer of the backbone{kind}: {choice}")
    return [known[name] for name in names]
