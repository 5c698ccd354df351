"""What a newcomer passes: an object for a class, a class for an object, a word, a batch of another kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import FGSM, AdversarialModule
from tests.support.helpers import Batches, batches, mlp, quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]

NET = mlp()
SGD = torch.optim.SGD(NET.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": SGD}, "optimizer is a SGD that is built already: pass a class, or functools.partial"),
        ({"optimizer": "adam"}, "optimizer is 'adam': pass a class"),
        ({"optimizer": None}, "optimizer is a NoneType"),
        ({"lr_scheduler": torch.optim.lr_scheduler.StepLR(SGD, 1)}, "lr_scheduler is a StepLR that is built already"),
        ({"loss_fn": nn.CrossEntropyLoss}, "loss_fn is the class CrossEntropyLoss: pass a function"),
        ({"loss_fn": "cross_entropy"}, "loss_fn is 'cross_entropy': pass a function"),
    ],
)
def test_names_an_argument_of_the_module(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        AdversarialModule(NET, FGSM(0.1), **given)


def test_warns_of_a_sum() -> None:
    with pytest.warns(UserWarning, match="CrossEntropyLoss has reduction='sum', and J is the mean"):
        AdversarialModule(NET, loss_fn=nn.CrossEntropyLoss(reduction="sum"))


@pytest.mark.parametrize("loss", [lambda z, y: F.cross_entropy(z, y).item(), lambda z, y: (F.cross_entropy(z, y), {})])
@pytest.mark.parametrize("eps", [None, 0.1])
def test_names_a_loss_that_is_no_tensor(loss: Any, eps: float | None) -> None:
    for stage in (quiet_trainer(limit_val_batches=0).fit, quiet_trainer().test):
        module = AdversarialModule(mlp(), None if eps is None else FGSM(eps), loss_fn=loss)
        with pytest.raises(TypeError, match=r"the loss is a (float|tuple), expected a tensor, the mean"):
            stage(module, batches(1))


def loader(collate: Any = None) -> Any:
    x, y = next(iter(batches(1)))
    return DataLoader(TensorDataset(x, y), 4, collate_fn=collate)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (DataLoader([(torch.rand(3), word) for word in "abcd"], 2), "labels are a tuple of str, such as 'a'"),
        (loader(lambda rows: (torch.stack([x for x, _ in rows]).numpy(), torch.zeros(4))), "inputs are a numpy array"),
        (loader(lambda rows: (torch.zeros(4, 3), torch.zeros(4).numpy())), "labels are a numpy array"),
        ([loader(), loader()], "a list of two batches, as several training dataloaders give it"),
        (CombinedLoader([loader(), loader()], "max_size_cycle"), "a list of two batches"),
    ],
)
def test_names_a_batch_of_another_kind(train: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        quiet_trainer(limit_val_batches=0).fit(AdversarialModule(mlp(), FGSM(0.1)), train)


@pytest.mark.parametrize("eps", [None, 0.1])
def test_names_an_empty_batch(eps: float | None) -> None:
    module = AdversarialModule(mlp(), None if eps is None else FGSM(eps))
    empty = Batches(next(iter(batches(1))), tuple(part[:0] for part in next(iter(batches(1)))))
    for stage in (quiet_trainer(limit_val_batches=0).fit, quiet_trainer().test):
        with pytest.raises(ValueError, match="the batch is empty"):
            stage(module, empty)
