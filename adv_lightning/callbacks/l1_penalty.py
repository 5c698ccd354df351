"""The L1 penalty."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from adv_lightning.callbacks._layer_names import adversarial, layer_names, named_layers
from adv_lightning.callbacks.penalty_base import Term
from adv_lightning.module import AdversarialModule


class L1Penalty(Term):
    """Adds coefficient * sum of |w| over the weights of chosen layers (Goodfellow et al. 2015, section 5).

    The attack's gradient, `train/clean_loss` and `train/adv_loss` do not include the penalty. Biases are not
    penalised.

    Args:
        coefficient: Factor, 0 or more.
        layers: Dotted names of the layers within the backbone. Each must have a `weight`, as linear, maxout and
            convolutional layers do.

    Raises:
        TypeError: the module is not an AdversarialModule.
        ValueError: when built, `coefficient` is negative or not finite, or `layers` is empty or contains a name twice;
            before training, the backbone has no layer of a name, or the layer has no weight.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[L1Penalty(0.0025, layers=["net.maxout1"])])
    """

    def __init__(self, coefficient: float, layers: list[str]) -> None:
        if not 0 <= coefficient < math.inf:
            raise ValueError(f"coefficient={coefficient!r}: give a finite number, 0 or more")
        self.coefficient = coefficient
        self.layers = layer_names(layers)

    def check(self, module: AdversarialModule) -> list[nn.Module]:
        """Return the layers.

        Raises:
            ValueError: the module's backbone has no layer of a name, or the layer has no weight.
        """
        return named_layers(module.backbone, self.layers, _has_weight, " with a weight")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.check(adversarial(pl_module, self))

    def term(self, pl_module: LightningModule) -> Callable[[Tensor], Tensor]:
        layers = self.check(adversarial(pl_module, self))

        def term(x: Tensor) -> Tensor:
            # Read anew each time, since a weight may be computed from other parameters. Tied ones count once.
            weights = {id(weight): weight for weight in map(_weight, layers)}
            return self.coefficient * torch.stack([weight.abs().sum() for weight in weights.values()]).sum()

        return term


def _has_weight(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "weight", None), Tensor)


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
