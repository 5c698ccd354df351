"""A limit on the norm of each unit's incoming weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn

_NOT_UNITS_FIRST = (nn.Embedding, nn.EmbeddingBag, nn.modules.conv._ConvTransposeNd, nn.Bilinear)


class MaxNorm(Callback):
    """Scales each unit's incoming weights back to `max_norm` after every optimizer step (Srivastava et al. 2014).

    A unit is a row of a linear weight [out, in], a piece of a maxout layer, or a filter of a convolution
    [out, in, h, w]; its norm is the Euclidean one over all but the first dimension.

    Args:
        max_norm: Largest norm, above 0.
        layers: Dotted names, within the backbone, of the layers to limit. Null: every linear, maxout and
            convolutional layer.

    Raises:
        ValueError: max_norm is not above 0, or a layer has no weight of two dimensions or more.
    """

    def __init__(self, max_norm: float, layers: list[str] | None = None) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm={max_norm!r}: give a number above 0")
        self.max_norm = max_norm
        self.layers = layers
        self._weights: list[Tensor] = []
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone = pl_module.backbone if isinstance(getattr(pl_module, "backbone", None), nn.Module) else pl_module
        assert isinstance(backbone, nn.Module)
        modules = dict(backbone.named_modules())
        if self.layers is None:
            chosen = [m for m in modules.values() if not isinstance(m, _NOT_UNITS_FIRST)]
            self._weights = [m.weight for m in chosen if _has_units(m)]
        else:
            self._weights = []
            for name in self.layers:
                if name not in modules or not _has_units(modules[name]):
                    known = ", ".join(name for name, module in modules.items() if _has_units(module))
                    raise ValueError(f"layers has {name!r}, which is no layer with a weight matrix: there are {known}")
                self._weights.append(modules[name].weight)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        with torch.no_grad():
            for weight in self._weights:
                weight.renorm_(p=2, dim=0, maxnorm=self.max_norm)


def _has_units(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() >= 2
