"""An ensemble of trained networks."""

from __future__ import annotations

from pathlib import Path

from adv_lightning.data.class_names import check_class_names
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.losses import SoftmaxLoss
from adv_lightning.models import Ensemble


class CheckpointEnsemble(Ensemble):
    """The `Ensemble` of the backbones in several checkpoints, in eval mode.

    Lightning's `fit` does not change modes: call `train()` before you train it further.

    Args:
        checkpoints: Paths of checkpoints that the command line made, which describe their networks.

    Raises:
        ValueError: the list is empty, a module cannot be rebuilt (see `load_module`), or a network was trained with a
            loss other than a softmax's.
        FileNotFoundError: a file is missing.
    """

    def __init__(self, checkpoints: list[str]) -> None:
        for path in checkpoints:
            if not Path(path).is_file():
                raise FileNotFoundError(f"checkpoints contains {path!r}, which does not exist")
        modules = [load_module(path) for path in checkpoints]
        for path, module in zip(checkpoints, modules, strict=True):
            if not isinstance(module.loss_fn, SoftmaxLoss):
                raise ValueError(
                    f"{path} was trained with {module.loss_fn}: an Ensemble needs networks with a SoftmaxLoss"
                )
            check_class_names(modules[0].trained_classes, module.trained_classes, checkpoints[0])
        super().__init__([module.backbone for module in modules])
        self.class_names = modules[0].trained_classes
