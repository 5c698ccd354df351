"""The first n examples that are judged: in proportion to classes, the same for all, or named."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import FGSM, PGD, AdversarialModule, Attack
from adv_lightning.data import DigitsDataModule, ImageFolderDataModule
from adv_lightning.data.sampler import ShardedSampler
from adv_lightning.evaluation import AttackSuite
from adv_lightning.evaluation.comparison import Comparison
from tests.support.helpers import mlp, quiet_trainer

SIZES = {"ant": 40, "bee": 20, "cat": 20}


class Seen(Attack):
    """Changes nothing, and keeps the labels of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[int] = []

    def forward(self, model: Any, x: Tensor, y: Tensor, *, loss_fn: Any) -> Tensor:
        self.labels += y.tolist()
        return x.clone()


@pytest.fixture
def pictures(tmp_path: Path) -> ImageFolderDataModule:
    """A folder is sorted by class."""
    for part in ("train", "val", "test"):
        for value, (name, number) in enumerate(SIZES.items()):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (4, 4), (i, value, 0)).save(tmp_path / part / name / f"{i:03}.png")
    return ImageFolderDataModule(root=str(tmp_path), image_size=4, batch_size=16)


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


@pytest.mark.parametrize("n", [8, 20, 64])
def test_attacks_of_a_table_and_of_validation_judge_a_fair_part(n: int, pictures: ImageFolderDataModule) -> None:
    judges = [Seen() for _ in range(4)]  # two validations of the module's own attack, two attacks of a table
    for judge in judges[:2]:
        module = AdversarialModule(net(), val_attack=judge, val_attack_samples=n)
        quiet_trainer().validate(module, datamodule=pictures, verbose=False)
    suite = AttackSuite(dict(zip("ab", judges[2:], strict=True)), max_samples=n)
    module = AdversarialModule(net(), val_attack=FGSM(0.1))
    quiet_trainer(callbacks=[suite]).validate(module, datamodule=pictures, verbose=False)
    for judge in judges:
        assert judge.labels[:n] == judges[0].labels  # a table's attacks run once more, for a picture
    counts = Counter(judges[0].labels)
    assert counts.total() == n
    assert all(abs(counts[label] - n * size / 80) <= 1.25 for label, size in enumerate(SIZES.values()))


def test_processes_share_the_same_order() -> None:
    data, order = list(range(10)), torch.randperm(10)
    parts = [list(ShardedSampler(data, 3, rank, pad=False, order=order)) for rank in range(3)]
    whole = [index for i in range(4) for part in parts for index in part[i : i + 1]]
    assert whole == order.tolist()
    shuffled = ShardedSampler(data, 1, 0, shuffle=True)
    assert list(ShardedSampler(data, 1, 0, shuffle=True, order=order)) == list(shuffled)


def test_sets_that_are_shuffled_keep_the_order_of_their_files() -> None:
    data = DigitsDataModule(batch_size=360)
    data.setup("test")
    assert data.test_set is not None
    ((_, labels),) = data.test_dataloader()
    assert torch.equal(labels, data.test_set.labels)


def loader(labels: Tensor) -> DataLoader[Any]:
    x = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return DataLoader(TensorDataset(x, labels), batch_size=25)


SORTED = torch.arange(3).repeat_interleave(100)
MIXED = SORTED[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
quiet = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@quiet
@pytest.mark.parametrize("number", [20, 30, 150])
def test_says_what_was_taken_of_a_loader_sorted_by_class(number: int) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), val_attack_samples=number)
    taken = f"{min(number, 100)} of {number} of class 0"
    with pytest.warns(UserWarning, match=f"val_attack_samples={number} took .* {taken}"):
        quiet_trainer().validate(module, loader(SORTED), verbose=False)
    suite = AttackSuite({"PGD": PGD(0.1, steps=2)}, max_samples=number)
    with pytest.warns(UserWarning, match=rf"max_samples={number} took .* of class \d, which has 100 of all 300"):
        quiet_trainer(callbacks=[suite]).test(module, loader(SORTED), verbose=False)
    comparison = Comparison({"a": module, "b": AdversarialModule(mlp(seed=1))}, FGSM(0.1), max_samples=number)
    with pytest.warns(UserWarning, match=f"max_samples={number} took"):
        quiet_trainer().test(comparison, loader(SORTED), verbose=False)


@quiet
@pytest.mark.parametrize("number", [1, 5, 30, 150, 300, None])
def test_says_nothing_of_a_mixed_one(number: int | None) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), val_attack_samples=number)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*took the first examples")
        quiet_trainer(callbacks=[AttackSuite(max_samples=number)]).validate(module, loader(MIXED), verbose=False)
        if number is None:
            quiet_trainer(callbacks=[AttackSuite()]).validate(module, loader(SORTED), verbose=False)
