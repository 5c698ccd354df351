"""The filters of the first layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from adv_lightning.evaluation import plots
from adv_lightning.evaluation.evaluator import Evaluator, class_names
from adv_lightning.evaluation.report_section import Picture, Section
from adv_lightning.metrics import locality
from adv_lightning.models import Maxout
from adv_lightning.module import AdversarialModule


class FirstLayer(Evaluator):
    """Draws the filters of the first layer, and reports how local they are.

    The first layer is the first linear layer that takes the whole input, or the first convolution. For a linear model
    the weights of each class are drawn with their sign (Goodfellow et al. 2015, figure 2), for any other network some
    of the filters (figure 3). A network without such a layer gets no section.

    Args:
        filters: Largest number of filters to draw, at least 1. For a maxout layer, a row of the picture is a unit.

    Raises:
        ValueError: `filters` is below 1.
    """

    def __init__(self, filters: int = 50) -> None:
        if filters < 1:
            raise ValueError(f"filters={filters!r}: give at least 1")
        self.filters = filters

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        self._shape: torch.Size | None = None

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        self._shape = x.shape[1:]

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        title = "First layer"
        found = None if self._shape is None else first_layer(module.backbone, self._shape)
        if found is None:
            return Section(title)
        name, layer, weights = found
        spread = locality(weights).nanmedian().item()
        text = (
            f"{len(weights)} filter{'s' if len(weights) > 1 else ''} of layer {name}, of "
            f"{' x '.join(map(str, weights.shape[1:]))}."
        )
        if not math.isnan(spread):
            text += (
                " Spread is the root mean square distance of a filter's energy from its centre, in pixels; a small "
                f"spread is local. Median: {spread:.2f}."
            )
        return Section(
            title,
            text,
            pictures=self._pictures(layer, weights, trainer, module) if weights.shape[1] in (1, 3) else [],
            record={
                "first_layer": {
                    "layer": name,
                    "filters": len(weights),
                    "median_spread_pixels": None if math.isnan(spread) else spread,
                }
            },
        )

    def _pictures(
        self, layer: nn.Module, weights: Tensor, trainer: Trainer, module: AdversarialModule
    ) -> list[Picture]:
        names = class_names(trainer)
        if _is_linear(layer, module):
            titles = names if names is not None and len(names) == len(weights) else None
            caption = "The weights of each class, and their sign."
            return [Picture("weights and sign", caption, lambda: plots.weights_and_sign(weights, titles))]
        # A row contains whole maxout units.
        columns = layer.pieces * max(1, 10 // layer.pieces) if isinstance(layer, Maxout) else None
        shown = by_unit(layer, weights)[: self.filters]
        caption = f"The first {len(shown)} of {len(weights)} filters, on one scale."
        return [Picture("filters", caption, lambda: plots.filters(shown, columns=columns))]


def first_layer(backbone: nn.Module, shape: torch.Size) -> tuple[str, nn.Module, Tensor] | None:
    """Return the first layer's name, the layer and its filters, [N, C, H, W] in float32 on the CPU; None without one.

    Args:
        backbone: The network.
        shape: (C, H, W) of one input.
    """
    if len(shape) != 3:
        return None
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Linear) and layer.in_features == math.prod(shape):
            return name, layer, layer.weight.detach().float().cpu().view(-1, *shape)
        if isinstance(layer, nn.Conv2d) and layer.in_channels == shape[0]:
            return name, layer, layer.weight.detach().float().cpu()
    return None


def by_unit(layer: nn.Module, weights: Tensor) -> Tensor:
    """Order the filters, [N, ...], so that the pieces of a maxout unit are neighbours."""
    if not isinstance(layer, Maxout):
        return weights
    # Piece p of unit u is row p * units + u.
    return weights.view(layer.pieces, layer.units, *weights.shape[1:]).transpose(0, 1).flatten(0, 1)


def _is_linear(layer: nn.Module, module: nn.Module) -> bool:
    """Whether the layer is the whole network, so that its outputs are the logits."""
    own = {id(p) for p in layer.parameters()}
    return type(layer) is nn.Linear and all(id(p) in own for p in module.parameters())
