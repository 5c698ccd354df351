"""An ensemble of trained networks."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from adv_lightning.data.class_names import check_class_names
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.losses import SoftmaxLoss
from adv_lightning.models import Ensemble
from adv_lightning.module import AdversarialModule


class CheckpointEnsemble(Ensemble):
    """The `Ensemble` of the networks in several checkpoints, in eval mode.

    A network is the backbone, or the module itself if its class has a `forward` of its own. A `loss` of its own is not
    used, which a warning says.

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
        super().__init__([_network(module, path) for path, module in zip(checkpoints, modules, strict=True)])
        self.class_names = modules[0].trained_classes


def _network(module: AdversarialModule, path: str) -> nn.Module:
    kind = type(module)
    if kind.loss is not AdversarialModule.loss:
        rank_zero_warn(
            f"{path}: {kind.__name__} has a loss of its own, and an ensemble has that of its probabilities: attacks "
            "climb the cross-entropy of the mean"
        )
    return module.backbone if kind.forward is AdversarialModule.forward else module
