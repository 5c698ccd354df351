"""What callbacks ask of the module that they work on."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule
from torch import nn

from adv_lightning.methods.sites import Sites
from adv_lightning.module import AdversarialModule


def adversarial(module: LightningModule, callback: Callback) -> AdversarialModule:
    """Return `module` as what it must be.

    Raises:
        TypeError: it is no AdversarialModule.
    """
    if not isinstance(module, AdversarialModule):
        raise TypeError(
            f"{type(callback).__name__} works on an AdversarialModule, and this is a {type(module).__name__}"
        )
    return module


def sites_of(module: AdversarialModule, callback: Callback) -> Sites:
    """Return the places that the module's training method lets callbacks perturb.

    Raises:
        ValueError: the method perturbs the input by its attack and nothing else, so the callback would do nothing.
    """
    sites = module.method.sites
    if sites is None:
        raise ValueError(
            f"{type(callback).__name__} would do nothing: {type(module.method).__name__} perturbs the input by its own "
            f"attack only. Train with method=Mixed, or remove {type(callback).__name__}"
        )
    return sites


def layer_names(layers: list[str]) -> list[str]:
    """Return `layers` if it is a list of different names.

    Raises:
        ValueError: it is empty, no list, or has a name twice.
    """
    if not layers or isinstance(layers, str):
        raise ValueError(f"layers={layers!r}: give a list of dotted names of layers, such as [net.maxout1]")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers={layers!r}: give each layer once")
    return layers


def named_layers(
    backbone: nn.Module, names: list[str], suits: Callable[[nn.Module], bool] = lambda layer: True, kind: str = ""
) -> list[nn.Module]:
    """Return the layers of the backbone that have these dotted names.

    Args:
        backbone: The network; its own name, the empty one, is not a layer's.
        names: The dotted names.
        suits: Whether a layer is one of those to choose from.
        kind: What the error says of these, after "layer of the backbone".

    Raises:
        ValueError: a name is of no such layer.
    """
    known = {name: layer for name, layer in backbone.named_modules() if name and suits(layer)}
    for name in names:
        if name not in known:
            raise ValueError(
                f"layers has {name!r}, which is no layer of the backbone{kind}: there are {', '.join(known) or 'none'}"
            )
    return [known[name] for name in names]
