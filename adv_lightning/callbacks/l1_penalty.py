"""The L1 penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from adv_lightning.callbacks._checks import adversarial
from adv_lightning.callbacks.term import Term


class L1Penalty(Term):
    """Adds coefficient * sum of |w| over the weights of chosen layers (Goodfellow et al. 2015, section 5).

    The attack's gradient is without it. Biases are left out.

    Args:
        coefficient: Factor, 0 or more.
        layers: Dotted names, within the backbone, of the layers.

    Raises:
        ValueError: coefficient is negative, `layers` is empty, or a name is of no layer with a weight.
    """

    def __init__(self, coefficient: float, layers: list[str]) -> None:
        if not coefficient >= 0:
            raise ValueError(f"coefficient={coefficient!r}: give 0 or more")
        if not layers or isinstance(layers, str):
            raise ValueError(f"layers={layers!r}: give a list of dotted names of layers, such as [net.maxout1]")
        self.coefficient = coefficient
        self.layers = layers

    def term(self, pl_module: LightningModule) -> Callable[[Tensor], Tensor]:
        known = dict(adversarial(pl_module, self).backbone.named_modules())
        weighted = [name for name, layer in known.items() if isinstance(getattr(layer, "weight", None), Tensor)]
        for name in self.layers:
            if name not in weighted:
                raise ValueError(
                    f"layers has {name!r}, which is no layer of the backbone with a weight: there are "
                    f"{', '.join(weighted)}"
                )
        weights = [known[name].weight for name in self.layers]
        return lambda x: self.coefficient * torch.stack([weight.abs().sum() for weight in weights]).sum()
