from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor

from adv_lightning.data import BatchLoader, DigitsDataModule, ImageDataModule
from adv_lightning.data.base import split_indices


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


def test_digits_are_exactly_those_of_scikit_learn() -> None:
    module = DigitsDataModule()
    assert (module.num_classes, module.input_shape) == (10, (1, 8, 8))
    module.setup("fit")
    module.setup("test")
    sets = (module.train_set, module.val_set, module.test_set)
    images, labels = [], []
    for data in sets:
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


def test_the_test_set_of_digits_does_not_depend_on_the_split() -> None:
    tests = []
    for seed in (0, 1):
        module = DigitsDataModule(split_seed=seed)
        module.setup("test")
        assert module.test_set is not None
        tests.append(module.test_set.images)
    assert torch.equal(*tests)


@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_a_random_split_keeps_the_proportions_and_follows_its_seed(size: int) -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    train, val = split_indices(labels, size, seed=0)
    assert sorted(torch.cat([train, val]).tolist()) == list(range(100))
    assert len(val) == size
    expected = torch.tensor([50, 30, 20]) * size / 100
    assert (labels[val].bincount(minlength=3) - expected).abs().max() <= 1
    assert torch.equal(val, split_indices(labels, size, seed=0)[1])
    if size < 99:
        assert not torch.equal(val, split_indices(labels, size, seed=1)[1])


def test_the_last_images_are_validated_on_in_order() -> None:
    module = fitted(Ten(batch_size=2, val_size=3))
    assert numbers(module.val_dataloader()) == [[7, 8], [9]]
    assert sorted(chain(*numbers(module.train_dataloader()))) == list(range(7))


def test_a_random_split_does_not_follow_the_training_seed() -> None:
    splits = [fitted(Ten(val_size=4, split="random", seed=seed)).val_dataloader() for seed in (0, 1)]
    assert numbers(splits[0]) == numbers(splits[1])


def test_classes_are_relabelled_in_the_order_given_after_the_split() -> None:
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


def test_test_and_prediction_are_in_order_and_complete() -> None:
    module = Ten(batch_size=2)
    module.setup("predict")
    assert numbers(module.test_dataloader()) == numbers(module.predict_dataloader()) == [[0, 1], [2, 3], [4]]


def test_the_order_follows_the_seed_or_lightnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
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


def test_a_loader_before_setup_says_so() -> None:
    for use in (Ten().train_dataloader, Ten().val_dataloader, Ten().test_dataloader):
        with pytest.raises(RuntimeError, match="Ten has read nothing yet: call setup"):
            use()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"val_size": -1}, "val_size must be 0 or more, got -1"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"split_seed": -1}, "split_seed must be 0 or more, got -1"),
        ({"split": "first"}, "split must be 'last' or 'random', got 'first'"),
        ({"classes": [0, 3]}, r"two different labels from 0 to 2, got \[0, 3\]"),
        ({"classes": [-1, 1]}, r"got \[-1, 1\]"),
        ({"classes": [1, 1]}, r"got \[1, 1\]"),
        ({"classes": [1]}, r"got \[1\]"),
        ({"classes": []}, r"got \[\]"),
    ],
)
def test_bad_arguments_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ten(**options)


@pytest.mark.parametrize("size", [10, 11])
def test_a_validation_set_of_all_images_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"val_size={size} leaves nothing to train on: there are 10 images"):
        Ten(val_size=size).setup("fit")


def test_a_split_without_an_image_of_the_classes_is_named() -> None:
    with pytest.raises(ValueError, match="Ten, validation set: the set is empty"):
        Ten(val_size=1, classes=[1, 2]).setup("fit")


def test_a_set_of_your_own_must_say_how_it_is_read() -> None:
    class Empty(ImageDataModule):
        input_shape = (1, 1, 1)
        all_class_names = ("a", "b")

    with pytest.raises(NotImplementedError, match=r"Empty must define load\(part\)"):
        Empty().setup("fit")


def test_a_fit_sees_every_training_image_once_an_epoch_in_a_new_order(
    recorder: Any, make_trainer: Callable[..., Trainer]
) -> None:
    module = recorder(64, 10)
    data = DigitsDataModule(batch_size=64, seed=0)
    make_trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, datamodule=data)
    assert data.train_set is not None
    assert data.val_set is not None
    epochs = [torch.cat([x for at, _, x, _ in module.seen if at == epoch]).flatten(1) for epoch in (0, 1)]
    whole = data.train_set.images.flatten(1) / 16
    assert not torch.equal(epochs[0], epochs[1])
    for epoch in epochs:
        assert epoch.shape == whole.shape
        assert torch.equal(epoch.unique(dim=0), whole.unique(dim=0))
    assert torch.equal(torch.cat(module.judged), data.val_set.labels.repeat(2))


def test_lightning_takes_a_module_without_validation(recorder: Any, make_trainer: Callable[..., Trainer]) -> None:
    module = recorder(64, 10)
    data = DigitsDataModule(val_size=0)
    make_trainer(max_epochs=1, limit_train_batches=2).fit(module, datamodule=data)
    assert data.val_dataloader() == []
    assert len(module.seen) == 2
    assert module.judged == []


def test_lightning_tests_and_predicts_every_image_in_order(recorder: Any, make_trainer: Callable[..., Trainer]) -> None:
    module = recorder(64, 10)
    data = DigitsDataModule(batch_size=100)
    trainer = make_trainer()
    trainer.test(module, datamodule=data, verbose=False)
    predicted = trainer.predict(module, datamodule=data)
    assert data.test_set is not None
    assert predicted is not None
    assert torch.equal(torch.cat(module.judged), data.test_set.labels)
    assert torch.equal(torch.cat(predicted), data.test_set.labels)  # type: ignore[arg-type]


def test_on_device_moves_the_sets_to_the_trainers_device(make_trainer: Callable[..., Trainer]) -> None:
    data = fitted(Ten(on_device=True))
    assert numbers(data.train_dataloader())  # without a trainer: where it was read
    trainer = make_trainer()
    data.trainer = trainer
    trainer.strategy._root_device = torch.device("meta")
    x, y = next(iter(data.train_dataloader()))
    assert (x.device.type, y.device.type) == ("meta", "meta")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of threads
def test_two_processes_share_the_images_without_padding_what_is_judged(
    recorder: Any, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Saving(recorder):  # type: ignore[misc]
        def on_validation_end(self) -> None:
            seen = [y.tolist() for _, _, _, y in self.seen]
            torch.save((seen, [y.tolist() for y in self.judged]), tmp_path / f"{self.global_rank}.pt")

    # 201 images to train on and 201 to judge: 101 and 100 a process, which is two batches and one.
    data = DigitsDataModule(batch_size=100, val_size=201, seed=0)
    data.setup("fit")
    assert data.train_set is not None
    assert data.val_set is not None
    data.train_set.images, data.train_set.labels = data.train_set.images[:201], data.train_set.labels[:201]
    trainer = make_trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_fork", num_sanity_val_steps=0)
    trainer.fit(Saving(64, 10), datamodule=data)
    seen, judged = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    assert [[len(batch) for batch in batches] for batches in seen] == [[100, 1], [100, 1]]
    assert [[len(batch) for batch in batches] for batches in judged] == [[100, 1], [100]]
    interleaved = [label for pair in zip(*map(chain.from_iterable, judged), strict=False) for label in pair]
    assert interleaved + judged[0][-1] == data.val_set.labels.tolist()


@pytest.mark.parametrize(("part", "held"), [("test", [0, 1, 2, 3, 4]), ("train", list(range(7))), ("val", [7, 8, 9])])
def test_what_test_reads(part: Literal["test", "train", "val"], held: list[int]) -> None:
    module = Ten(batch_size=20, val_size=3, test_part=part)
    module.setup("test")
    assert numbers(module.test_dataloader()) == numbers(module.predict_dataloader()) == [held]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_part": "all"}, "test_part must be 'test', 'train' or 'val', got 'all'"),
        ({"test_part": "val", "val_size": 0}, "val_size=0 keeps no image for validation"),
    ],
)
def test_a_part_that_is_not_there_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ten(**arguments)
