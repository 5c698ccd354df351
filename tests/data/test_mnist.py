from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from adv_lightning.data import FashionMNISTDataModule, MNISTDataModule, TensorImages

FASHION = Path("/usr/share/datasets/fashion-mnist")


def write_small(folder: Path, suffix: str = "") -> None:
    """Write sets of 12 and 5 images; image i is all i and its label is i modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, number in (("train", 12), ("t10k", 5)):
        labels = bytes(i % 10 for i in range(number))
        images = bytes(i for i in range(number) for _ in range(28 * 28))
        count = number.to_bytes(4, "big")
        for name, data in (
            ("images-idx3-ubyte", bytes([0, 0, 8, 3]) + count + (28).to_bytes(4, "big") * 2 + images),
            ("labels-idx1-ubyte", bytes([0, 0, 8, 1]) + count + labels),
        ):
            content = gzip.compress(data) if suffix == ".gz" else data
            (folder / f"{part}-{name}{suffix}").write_bytes(content)


def read(module: MNISTDataModule) -> tuple[TensorImages, TensorImages, TensorImages]:
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.test_set is not None
    return module.train_set, module.val_set, module.test_set


@pytest.fixture(scope="module")
def reference(mnist_root: Path) -> dict[bool, tuple[Tensor, Tensor]]:
    """Images [N, 1, 28, 28] and labels of torchvision, by whether they are for training."""
    sets = {train: torchvision.datasets.MNIST(mnist_root, train=train) for train in (True, False)}
    return {train: (data.data.unsqueeze(1), data.targets) for train, data in sets.items()}


def test_real_mnist(mnist_root: Path, reference: dict[bool, tuple[Tensor, Tensor]]) -> None:
    module = MNISTDataModule(root=str(mnist_root))
    train, val, test = read(module)
    assert (len(train), len(val), len(test)) == (50_000, 10_000, 10_000)
    assert torch.equal(torch.cat([train.images, val.images]), reference[True][0])
    assert torch.equal(torch.cat([train.labels, val.labels]), reference[True][1])
    assert torch.equal(test.images, reference[False][0])
    assert torch.equal(test.labels, reference[False][1])

    data = torchvision.datasets.MNIST(mnist_root, train=False, transform=torchvision.transforms.ToTensor())
    x, y = next(iter(module.test_dataloader()))
    assert torch.equal(x, torch.stack([data[i][0] for i in range(100)]))
    assert y.tolist() == [data[i][1] for i in range(100)]


def test_real_threes_and_sevens(mnist_root: Path, reference: dict[bool, tuple[Tensor, Tensor]]) -> None:
    module = MNISTDataModule(root=str(mnist_root), classes=[3, 7])
    _, val, test = read(module)
    images, labels = reference[False]
    kept = (labels == 3) | (labels == 7)
    assert (module.num_classes, module.class_names) == (2, ["3", "7"])
    assert torch.equal(test.images, images[kept])
    assert torch.equal(test.labels, (labels[kept] == 7).long())
    last = reference[True][1][-10_000:]
    assert torch.equal(val.labels, (last[(last == 3) | (last == 7)] == 7).long())


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
def test_finds_every_layout(folder: str, suffix: str, tmp_path: Path) -> None:
    write_small(tmp_path / folder, suffix)
    train, val, test = read(MNISTDataModule(root=str(tmp_path), val_size=2))
    assert train.images[:, 0, 0, 0].tolist() == list(range(10))
    assert val.images[:, 0, 27, 27].tolist() == [10, 11]
    assert val.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [0, 1, 2, 3, 4]


def test_fashion_has_its_own_folder_and_names(tmp_path: Path) -> None:
    write_small(tmp_path / "FashionMNIST" / "raw")
    module = FashionMNISTDataModule(root=str(tmp_path), val_size=2, classes=[9, 0])
    read(module)
    assert module.class_names == ["Ankle boot", "T-shirt/top"]
    with pytest.raises(FileNotFoundError, match=r"^MNIST: "):
        MNISTDataModule(root=str(tmp_path)).prepare_data()


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Fashion-MNIST is not in {FASHION}")
def test_real_fashion_mnist() -> None:
    module = FashionMNISTDataModule(root=str(FASHION))
    train, val, test = read(module)
    assert (len(train), len(val), len(test)) == (50_000, 10_000, 10_000)
    assert torch.cat([train.labels, val.labels]).bincount().tolist() == [6_000] * 10
    assert test.labels.bincount().tolist() == [1_000] * 10
    assert [module.class_names[label] for label in test.labels[:3]] == ["Ankle boot", "Pullover", "Trouser"]


def test_missing_folder(tmp_path: Path) -> None:
    module = MNISTDataModule(root=str(tmp_path / "nowhere"))
    assert (module.num_classes, module.input_shape) == (10, (1, 28, 28))  # known before any file is read
    for use in (module.prepare_data, lambda: module.setup("fit")):
        with pytest.raises(FileNotFoundError) as error:
            use()
        for fact in (str(tmp_path / "nowhere/MNIST/raw"), "train-images-idx3-ubyte", "root", "download: true"):
            assert fact in str(error.value)


def test_names_a_missing_file(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no file t10k-labels-idx1-ubyte"):
        MNISTDataModule(root=str(tmp_path)).prepare_data()


def test_refuses_fewer_labels_than_images(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"MNISTDataModule, training set: 12 images .*\[3\]"):
        MNISTDataModule(root=str(tmp_path), val_size=0).setup("fit")


def test_failed_download(tmp_path: Path) -> None:
    class Unreachable(torchvision.datasets.MNIST):  # type: ignore[misc]
        mirrors = ("http://127.0.0.1:9/",)  # the discard port: nothing listens there

    class Module(MNISTDataModule):
        source = Unreachable

    with pytest.raises(ConnectionError, match=rf"(?s)download Unreachable to {tmp_path}: .*remove download.* root"):
        Module(root=str(tmp_path), download=True).prepare_data()


def test_downloads_only_what_is_missing(tmp_path: Path) -> None:
    class Untouchable(torchvision.datasets.MNIST):  # type: ignore[misc]
        def download(self) -> None:
            raise AssertionError("downloaded")

    class Module(MNISTDataModule):
        source = Untouchable

    write_small(tmp_path)
    read(Module(root=str(tmp_path), download=True, val_size=2))
