"""Layers that are frozen for a while."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
)
from torch import Tensor, nn
from torch.optim import Optimizer

from adv_lightning import FGSM, AdversarialModule
from tests.support.digits import EPS, fit, module, net


class Unfreeze(BaseFinetuning):
    """Freezes the first layer until epoch 1."""

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.backbone[1])

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone[1], optimizer)


class Headed(AdversarialModule):
    """A head beside the backbone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def frozen_until(model: AdversarialModule, layer: nn.Linear, callback: Callback) -> list[bool]:
    """Train two epochs and tell after each whether the layer is as it was."""
    before, same = layer.weight.detach().clone(), []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            same.append(torch.equal(layer.weight, before))

    fit(model, max_epochs=2, callbacks=[callback, Look()])
    return same


@pytest.mark.switch("works", "BaseFinetuning of some layers")
def test_layers_unfrozen_later() -> None:
    model = module()
    assert frozen_until(model, model.backbone[1], Unfreeze()) == [True, False]


@pytest.mark.switch("works", "BackboneFinetuning, head in a subclass")
def test_backbone_finetuning_with_own_head() -> None:
    model = Headed(backbone=net()[:3], attack=FGSM(EPS), optimizer=partial(torch.optim.SGD, lr=0.1))
    assert frozen_until(model, model.backbone[1], BackboneFinetuning(unfreeze_backbone_at_epoch=1)) == [True, False]


@pytest.mark.switch("refused", "BackboneFinetuning")
def test_refuses_to_freeze_the_whole_network() -> None:
    with pytest.raises(ValueError, match=r"nothing to train.*BackboneFinetuning"):
        fit(module(), callbacks=[BackboneFinetuning()])
