"""Labels that are no class, in a later batch: training and every evaluation refuse them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.evaluation import AttackSuite
from adv_lightning.losses import LogisticLoss, RBFLoss, SigmoidLoss, SoftmaxLoss
from adv_lightning.metrics.epoch_metrics import EpochMetrics
from tests.support.helpers import Batches, batches, fit, mlp, quiet_trainer


def loader(label: int, at: int = 2) -> Batches:
    ready = batches(3)
    return Batches(
        *[(x, y.clone().index_fill_(0, torch.tensor([1]), label) if i == at else y) for i, (x, y) in enumerate(ready)]
    )


class Negative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return -F.softplus(self.net(x))


@pytest.mark.parametrize("label", [-100, -1, 3])
@pytest.mark.parametrize("loss", [SoftmaxLoss(), SigmoidLoss(), RBFLoss()], ids=str)
def test_training_refuses_them(loss: Any, label: int) -> None:
    for attack in (None, FGSM(0.1)):
        module = AdversarialModule(Negative(), attack, val_attack=FGSM(0.1), loss_fn=loss)
        with pytest.raises(ValueError, match=rf"labels range from .*{label}"):
            fit(module, loader(label))


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(ignore_index=-1)], ids=str)
@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("label", [-100, -1])
def test_every_evaluation_refuses_them(loss: Any, stage: str, label: int) -> None:
    for callbacks in ([], [AttackSuite()]):
        module = AdversarialModule(mlp(), FGSM(0.1), loss_fn=loss)
        with pytest.raises(ValueError, match=f"labels range from {label}"):
            getattr(quiet_trainer(callbacks=callbacks), stage)(module, loader(label), verbose=False)


def test_a_binary_loss_refuses_them() -> None:
    ready = batches(3, classes=2)
    changed = Batches(*ready.batches[:2], (ready.batches[2][0], ready.batches[2][1] - 100))
    net = nn.Linear(6, 1).double()
    with pytest.raises(ValueError, match="must be 0 or 1, got -"):
        fit(AdversarialModule(net, FGSM(0.1), loss_fn=LogisticLoss()), changed)


def test_the_end_of_an_epoch_finds_them_where_batches_are_not_checked() -> None:
    """On a GPU, whose values no batch waits for."""
    metrics = EpochMetrics()
    metrics.add(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor(1.0))
    assert metrics.measured().keys() == {"loss", "error"}
    metrics.add(torch.tensor([0, 1]), torch.tensor([0, -100]), torch.tensor(1.0))
    with pytest.raises(ValueError, match="1 labels are below 0"):
        metrics.measured()


def test_no_label_is_ignored() -> None:
    logits, y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
    assert torch.equal(SoftmaxLoss()(logits, y), F.cross_entropy(logits, y))
    with pytest.raises(ValueError, match="labels range from -100"):
        SoftmaxLoss()(logits, torch.tensor([0, 1, 2, -100]))
