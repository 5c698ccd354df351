"""An ensemble of trained networks."""

from __future__ import annotations

from pathlib import Path

from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.losses import SoftmaxLoss
from adv_lightning.models import Ensemble


class CheckpointEnsemble(Ensemble):
    """The `Ensemble` of the backbones in several checkpoints, in eval mode.

    Lightning's `fit` leaves modes as they are: call `train()` before training it further.

    Args:
        checkpoints: Paths of checkpoints that a command line made, so that they know their networks.

    Raises:
        ValueError: there is no path, a file cannot be rebuilt (see `load_module`), or a network was trained with
            another loss than a softmax's.
        FileNotFoundError: a file is missing.
    """

    def __init__(self, checkpoints: list[str]) -> None:
        for path in checkpoints:
            if not Path(path).is_file():
                raise FileNotFoundError(f"checkpoints has {path!r}: there is no such file")
        modules = [load_module(path) for path in checkpoints]
        for path, module in zip(checkpoints, modules, strict=True):
            if not isinstance(module.loss_fn, SoftmaxLoss):
                raise ValueError(f"{path} was trained with {module.loss_fn}, and an Ensemble averages softmaxes")
        super().__init__([module.backbone for module in modules])
