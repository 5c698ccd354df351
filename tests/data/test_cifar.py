from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from adv_lightning.data import CIFAR10DataModule, RandomCropFlip

PER_FILE = 4
Cifar = tuple[type[CIFAR10DataModule], Path]


@pytest.fixture
def cifar(tmp_path: Path) -> Cifar:
    """Files in the format of the real ones, four pictures each, and a reader that knows their digests."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name: str, content: Any) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name: str) -> list[str]:
        pixels = rng.integers(256, size=(PER_FILE, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": rng.integers(10, size=PER_FILE).tolist()})

    names = list(CIFAR10DataModule.all_class_names)
    meta_file, meta_md5 = write("batches.meta", {"label_names": names})
    train, test = [batch(f"data_batch_{i}") for i in range(1, 6)], [batch("test_batch")]

    class Source(torchvision.datasets.CIFAR10):  # type: ignore[misc]
        train_list = train
        test_list = test
        meta = {"filename": meta_file, "key": "label_names", "md5": meta_md5}  # noqa: RUF012

    class Small(CIFAR10DataModule):
        source = Source

    return Small, tmp_path


def raw(root: Path, name: str) -> tuple[Tensor, list[int]]:
    content = pickle.loads((root / "cifar-10-batches-py" / name).read_bytes())
    return torch.from_numpy(content["data"]).view(-1, 3, 32, 32), content["labels"]


@pytest.mark.filterwarnings("ignore:.*no image of frog")  # so few are drawn
def test_reads_the_rows_of_the_files(cifar: Cifar) -> None:
    small, root = cifar
    module = small(root=str(root), val_size=PER_FILE)
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.test_set is not None
    train = [raw(root, f"data_batch_{i}") for i in range(1, 5)]
    assert torch.equal(module.train_set.images, torch.cat([images for images, _ in train]))
    assert module.train_set.labels.tolist() == [label for _, labels in train for label in labels]
    assert torch.equal(module.val_set.images, raw(root, "data_batch_5")[0])
    assert torch.equal(module.test_set.images, raw(root, "test_batch")[0])
    assert module.test_set.labels.tolist() == raw(root, "test_batch")[1]


@pytest.mark.filterwarnings("ignore:.*no image of frog")  # so few are drawn
def test_augments_only_training(cifar: Cifar) -> None:
    small, root = cifar
    module = small(root=str(root), val_size=PER_FILE, seed=5)
    module.setup("fit")
    assert module.train_set is not None
    assert isinstance(module.train_set.transform, RandomCropFlip)
    plain = module.train_set.images / 255
    first = [x for x, _ in module.train_dataloader()]
    again = [x for x, _ in module.train_dataloader()]
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    unchanged = (torch.cat(first)[:, None] == plain[None]).flatten(2).all(2).any(1)
    assert int(unchanged.sum()) < len(plain) / 2
    val = module.val_dataloader()
    assert not isinstance(val, list)
    assert torch.equal(torch.cat([x for x, _ in val]), raw(root, "data_batch_5")[0] / 255)

    bare = small(root=str(root), val_size=PER_FILE, augment=False, seed=5)
    bare.setup("fit")
    batches = torch.cat([x for x, _ in bare.train_dataloader()])
    assert (batches[:, None] == plain[None]).flatten(2).all(2).any(1).all()


def test_missing_folder(tmp_path: Path) -> None:
    module = CIFAR10DataModule(root=str(tmp_path))
    assert (module.num_classes, module.input_shape) == (10, (3, 32, 32))  # known before any file is read
    for use in (module.prepare_data, lambda: module.setup("test")):
        with pytest.raises(FileNotFoundError) as error:
            use()
        for fact in (str(tmp_path / "cifar-10-batches-py"), "data_batch_1", "root", "download: true"):
            assert fact in str(error.value)


def test_refuses_a_changed_file_before_unpickling(cifar: Cifar) -> None:
    small, root = cifar
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"\x80\x02csubprocess\nrun\n.")
    module = small(root=str(root), val_size=0)
    module.prepare_data()
    with pytest.raises(FileNotFoundError, match="damaged"):
        module.setup("fit")
