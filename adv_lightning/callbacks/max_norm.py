"""A limit on the norm of each unit's incoming weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn

_ALLOWED = "linear, maxout and (not transposed) convolutional layers"


class MaxNorm(Callback):
    """Scales each unit's incoming weights back to `max_norm` after every optimizer step (Srivastava et al. 2014).

    A unit is a row of a linear weight [out, in], a piece of a maxout layer, or a filter of a convolution
    [out, in, h, w]. Its norm is the Euclidean norm over all dimensions but the first.

    Args:
        max_norm: Largest norm, above 0.
        layers: Dotted names of the layers to limit, within the backbone. Null: every linear, maxout and
            convolutional layer.

    Raises:
        ValueError: when built, `max_norm` is not above 0; when training starts, a name in `layers` is not such a layer,
            the backbone has no such layer, or a layer's weight is computed from other parameters (weight_norm,
            spectral_norm, pruning).

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[MaxNorm(1.9)])
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
        known = [name for name, module in modules.items() if _has_units(module)]
        if not known:
            raise ValueError(
                f"MaxNorm limits {_ALLOWED}, but the backbone has none: remove MaxNorm (callbacks.max_norm=null)"
            )
        chosen = known if self.layers is None else self.layers
        for name in chosen:
            if name not in known:
                kind = f"a {type(modules[name]).__name__}" if name in modules else "not a layer of the backbone"
                raise ValueError(
                    f"layers has {name!r}, which is {kind}. MaxNorm limits {_ALLOWED}: choose from {', '.join(known)}"
                )
            if "weight" not in dict(modules[name].named_parameters(recurse=False)):
                others = [other for other in known if other != name]
                raise ValueError(
                    f"the weight of the layer {name!r} is computed from other parameters (weight_norm, spectral_norm, "
                    "pruning), so a limit on it would not last. Remove that from the layer, or set `layers` to other "
                    f"layers: {', '.join(others) or 'there are none'}"
                )
        self._weights = [modules[name].get_parameter("weight") for name in chosen]
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
    # Not a transposed convolution: its weight is [in, out, ...].
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
