from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from sklearn.datasets import load_digits
from torch import Tensor

from adv_lightning.data import BatchLoader, DigitsDataModule, ImageDataModule
from adv_lightning.data.split import split_indices
from tests.data.recorder import Recorder
from tests.support.helpers import quiet_trainer


class Ten(ImageDataModule):
    """Ten training images and five test images of three classes; each image is its own number."""

    input_shape = (1, 1, 1)
    all_class_names = ("a", "b", "c")

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        number = torch.arange(10 if part == "train" else 5)
        return number.to(torch.uint8).view(-1, 1, 1, 1), number % 3


def numbers(loader: BatchLoader | list[BatchLoader]) -> list[list[int]]:
    assert isinstance(loader, BatchLoader)
    return [(x * 255).round().int().flatten().tolist() for x, _ in loader]


def fitted(module: ImageDataModule) -> ImageDataModule:
    module.setup("fit")
    return module


# The digits


def test_digits_are_those_of_scikit_learn() -> None:
    module = fitted(DigitsDataModule())
    module.setup("test")
    assert (module.num_classes, module.input_shape) == (10, (1, 8, 8))
    images, labels = [], []
    for data in (module.train_set, module.val_set, module.test_set):
        assert data is not None
        x, y = data.__getitems__(range(len(data)))
        images.append(x)
        labels.append(y)
    assert [len(y) for y in labels] == [1200, 237, 360]
    source = load_digits()
    expected = np.column_stack([source.target, source.images.reshape(-1, 64) / 16])
    got = torch.column_stack([torch.cat(labels).double(), torch.cat(images).flatten(1).double()]).numpy()
    assert np.array_equal(expected[np.lexsort(expected.T)], got[np.lexsort(got.T)])
    share = np.bincount(source.target) / len(source.target)
    for y in labels:
        assert np.abs(np.bincount(y) - share * len(y)).max() <= 1.5


def test_digits_have_one_test_set() -> None:
    tests = []
    for seed in (0, 1):
        module = DigitsDataModule(split_seed=seed)
        module.setup("test")
        assert module.test_set is not None
        tests.append(module.test_set.images)
    assert torch.equal(*tests)


# Splits


def test_random_split() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    for size in (1, 3, 10, 99):
        train, val = split_indices(labels, size, seed=0)
        assert sorted(torch.cat([train, val]).tolist()) == list(range(100))
        assert len(val) == size
        expected = torch.tensor([50, 30, 20]) * size / 100
        assert (labels[val].bincount(minlength=3) - expected).abs().max() <= 1
        assert torch.equal(val, split_indices(labels, size, seed=0)[1])
        if size < 99:
            assert not torch.equal(val, split_indices(labels, size, seed=1)[1])


def test_last_split() -> None:
    module = fitted(Ten(batch_size=2, val_size=3))
    assert numbers(module.val_dataloader()) == [[7, 8], [9]]
    assert sorted(chain(*numbers(module.train_dataloader()))) == list(range(7))


def test_random_split_ignores_the_training_seed() -> None:
    splits = [fitted(Ten(val_size=4, split="random", seed=seed)).val_dataloader() for seed in (0, 1)]
    assert numbers(splits[0]) == numbers(splits[1])


def test_classes_are_selected_after_the_split() -> None:
    module = Ten(val_size=4, classes=[2, 0])
    assert (module.num_classes, module.class_names) == (2, ["c", "a"])
    module.setup("fit")
    module.setup("test")
    assert module.val_set is not None
    assert module.train_set is not None
    assert module.test_set is not None
    assert module.train_set.images.flatten().tolist() == [0, 2, 3, 5]
    assert module.train_set.labels.tolist() == [1, 0, 1, 0]
    assert module.val_set.images.flatten().tolist() == [6, 8, 9]
    assert module.val_set.labels.tolist() == [1, 0, 1]
    assert module.test_set.labels.tolist() == [1, 0, 1]


# Loaders


def test_predict_reads_in_order_and_test_reads_the_same() -> None:
    module = Ten(batch_size=2)
    module.setup("predict")
    assert numbers(module.predict_dataloader()) == [[0, 1], [2, 3], [4]]
    assert sorted(index for batch in numbers(module.test_dataloader()) for index in batch) == [0, 1, 2, 3, 4]
    for part, expected in (("test", [0, 1, 2, 3, 4]), ("train", [*range(7)]), ("val", [7, 8, 9])):
        module = Ten(batch_size=20, val_size=3, test_part=part)  # type: ignore[arg-type]
        module.setup("test")
        assert numbers(module.predict_dataloader()) == [expected]
        assert sorted(numbers(module.test_dataloader())[0]) == expected


def test_order_follows_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_SEED_WORKERS", "0")

    def order(**options: Any) -> list[list[int]]:
        return numbers(fitted(Ten(**options)).train_dataloader())

    unset = order()
    assert unset == order(seed=0)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # so that the change is undone
    seed_everything(5, verbose=False)
    assert order() == order(seed=5)
    assert order() != unset
    assert order(seed=0) == unset


def test_setup_reads_once() -> None:
    module = fitted(Ten(val_size=2))
    first = module.train_set
    module.setup("validate")
    module.setup("fit")
    assert module.train_set is first


def test_on_device() -> None:
    data = fitted(Ten(on_device=True))
    assert numbers(data.train_dataloader())  # without a trainer: where it was read
    data.trainer = trainer = quiet_trainer()
    trainer.strategy._root_device = torch.device("meta")
    x, y = next(iter(data.train_dataloader()))
    assert (x.device.type, y.device.type) == ("meta", "meta")


# What is refused


BAD_CLASSES: list[list[int]] = [[0, 3], [-1, 1], [1, 1], [1], []]


def test_refuses_bad_arguments() -> None:
    bad: dict[str, dict[str, Any]] = {
        "batch_size.*1.*0": {"batch_size": 0},
        "val_size.*0.*-1": {"val_size": -1},
        "^seed.*0.*-1": {"seed": -1},
        "split_seed.*0.*-1": {"split_seed": -1},
        "split.*'last'.*'random'.*'first'": {"split": "first"},
        "test_part.*'test', 'train' or 'val'.*'all'": {"test_part": "all"},
        "test_part='val'.*val_size=0": {"test_part": "val", "val_size": 0},
    }
    bad |= {rf"classes.*0 to 2.*\[{str(classes)[1:-1]}\]": {"classes": classes} for classes in BAD_CLASSES}
    for facts, options in bad.items():
        with pytest.raises(ValueError, match=facts):
            Ten(**options)


def test_refuses_empty_sets() -> None:
    for size in (10, 11):
        with pytest.raises(ValueError, match=f"val_size={size}.*10 images"):
            Ten(val_size=size).setup("fit")
    with pytest.raises(ValueError, match=r"Ten, validation set:.*empty"):
        Ten(val_size=1, classes=[1, 2]).setup("fit")


def test_warns_of_missing_classes() -> None:
    class Sorted(Ten):
        def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
            images, labels = super().load(part)
            return images, labels.sort().values

    with pytest.warns(UserWarning, match=r"Sorted, training set: no image of b, c\b.*split: random"):
        Sorted(val_size=6).setup("fit")


def test_loaders_need_setup() -> None:
    for use in (Ten().train_dataloader, Ten().val_dataloader, Ten().test_dataloader):
        with pytest.raises(RuntimeError, match=r"Ten .*setup\("):
            use()


def test_load_is_abstract() -> None:
    class Empty(ImageDataModule):
        input_shape = (1, 1, 1)
        all_class_names = ("a", "b")

    with pytest.raises(NotImplementedError, match=r"Empty .*load\(part\)"):
        Empty().setup("fit")


# Under Lightning


def test_fit_sees_every_image_once_an_epoch() -> None:
    module, data = Recorder(), DigitsDataModule(batch_size=64, seed=0)
    quiet_trainer(max_epochs=2).fit(module, datamodule=data)
    assert data.train_set is not None
    assert data.val_set is not None
    epochs = [torch.cat([x for at, _, x, _ in module.seen if at == epoch]).flatten(1) for epoch in (0, 1)]
    whole = data.train_set.images.flatten(1) / 16
    assert not torch.equal(epochs[0], epochs[1])
    for epoch in epochs:
        assert epoch.shape == whole.shape
        assert torch.equal(epoch.unique(dim=0), whole.unique(dim=0))
    assert torch.equal(torch.cat(module.judged), data.val_set.labels.repeat(2))


def test_fit_without_validation() -> None:
    module, data = Recorder(), DigitsDataModule(val_size=0)
    quiet_trainer(limit_train_batches=2, num_sanity_val_steps=2).fit(module, datamodule=data)
    assert data.val_dataloader() == []
    assert len(module.seen) == 2
    assert module.judged == []


def test_test_and_predict_see_every_image_in_order() -> None:
    module, data = Recorder(), DigitsDataModule(batch_size=100)
    trainer = quiet_trainer()
    trainer.test(module, datamodule=data, verbose=False)
    predicted = trainer.predict(module, datamodule=data)
    assert data.test_set is not None
    assert predicted is not None
    assert torch.equal(torch.cat(module.judged), data.test_set.labels)
    assert torch.equal(torch.cat(predicted), data.test_set.labels)  # type: ignore[arg-type]


class Saving(Recorder):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_validation_end(self) -> None:
        seen = [y.tolist() for _, _, _, y in self.seen]
        torch.save((seen, [y.tolist() for y in self.judged]), self.folder / f"{self.global_rank}.pt")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of threads
def test_two_processes_pad_only_training(tmp_path: Path) -> None:
    # 201 images to train on and 201 to judge: 101 and 100 per process, which is two batches and one.
    data = DigitsDataModule(batch_size=100, val_size=201, seed=0)
    data.setup("fit")
    assert data.train_set is not None
    assert data.val_set is not None
    data.train_set.images, data.train_set.labels = data.train_set.images[:201], data.train_set.labels[:201]
    quiet_trainer(devices=2, strategy="ddp_fork").fit(Saving(tmp_path), datamodule=data)
    seen, judged = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    assert [[len(batch) for batch in batches] for batches in seen] == [[100, 1], [100, 1]]
    assert [[len(batch) for batch in batches] for batches in judged] == [[100, 1], [100]]
    interleaved = [label for pair in zip(*map(chain.from_iterable, judged), strict=False) for label in pair]
    assert interleaved + judged[0][-1] == data.val_set.labels.tolist()
