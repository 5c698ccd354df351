import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from adv_lightning.data import FashionMNISTDataModule, MNISTDataModule

FASHION = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def write_small(folder: Path, suffix: str = "") -> None:
    """Write sets of 12 and 5 images; image i is all i and its label is i modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, number in (("train", 12), ("t10k", 5)):
        labels = bytes(i % 10 for i in range(number))
        images = bytes(i for i in range(number) for _ in range(28 * 28))
        count = number.to_bytes(4, "big")
        for name, data in (
            (NAMES[0], bytes([0, 0, 8, 3]) + count + (28).to_bytes(4, "big") * 2 + images),
            (NAMES[1], bytes([0, 0, 8, 1]) + count + labels),
        ):
            content = gzip.compress(data) if suffix == ".gz" else data
            (folder / f"{part}-{name}{suffix}").write_bytes(content)


def read(module: MNISTDataModule) -> MNISTDataModule:
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    return module


def test_real_mnist_is_what_torchvision_reads(mnist_root: Path) -> None:
    module = read(MNISTDataModule(root=str(mnist_root)))
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.test_set is not None
    train = torchvision.datasets.MNIST(mnist_root, train=True)
    test = torchvision.datasets.MNIST(mnist_root, train=False)
    assert (len(module.train_set), len(module.val_set), len(module.test_set)) == (50_000, 10_000, 10_000)
    assert torch.equal(torch.cat([module.train_set.images, module.val_set.images]), train.data.unsqueeze(1))
    assert torch.equal(torch.cat([module.train_set.labels, module.val_set.labels]), train.targets)
    assert torch.equal(module.test_set.images, test.data.unsqueeze(1))
    assert torch.equal(module.test_set.labels, test.targets)

    to_tensor = torchvision.transforms.ToTensor()
    x, y = next(iter(module.test_dataloader()))
    assert torch.equal(x, torch.stack([to_tensor(test[i][0]) for i in range(100)]))
    assert y.tolist() == [test[i][1] for i in range(100)]


def test_real_threes_and_sevens(mnist_root: Path) -> None:
    module = read(MNISTDataModule(root=str(mnist_root), classes=[3, 7]))
    assert module.test_set is not None
    assert module.val_set is not None
    test = torchvision.datasets.MNIST(mnist_root, train=False)
    kept = (test.targets == 3) | (test.targets == 7)
    assert (module.num_classes, module.class_names) == (2, ["3", "7"])
    assert torch.equal(module.test_set.images, test.data[kept].unsqueeze(1))
    assert torch.equal(module.test_set.labels, (test.targets[kept] == 7).long())
    last = torchvision.datasets.MNIST(mnist_root, train=True).targets[-10_000:]
    assert torch.equal(module.val_set.labels, (last[(last == 3) | (last == 7)] == 7).long())


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
def test_every_layout_is_found(folder: str, suffix: str, tmp_path: Path) -> None:
    write_small(tmp_path / folder, suffix)
    module = read(MNISTDataModule(root=str(tmp_path), val_size=2))
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.test_set is not None
    assert module.train_set.images[:, 0, 0, 0].tolist() == list(range(10))
    assert module.val_set.images[:, 0, 27, 27].tolist() == [10, 11]
    assert module.val_set.labels.tolist() == [0, 1]
    assert module.test_set.labels.tolist() == [0, 1, 2, 3, 4]


def test_fashion_has_its_own_folder_and_names(tmp_path: Path) -> None:
    write_small(tmp_path / "FashionMNIST" / "raw")
    module = read(FashionMNISTDataModule(root=str(tmp_path), val_size=2, classes=[9, 0]))
    assert module.class_names == ["Ankle boot", "T-shirt/top"]
    with pytest.raises(FileNotFoundError, match=r"^MNIST: no file"):
        MNISTDataModule(root=str(tmp_path)).prepare_data()


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Fashion-MNIST is not in {FASHION}")
def test_real_fashion_mnist() -> None:
    module = read(FashionMNISTDataModule(root=str(FASHION)))
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.test_set is not None
    assert (len(module.train_set), len(module.val_set), len(module.test_set)) == (50_000, 10_000, 10_000)
    labels = torch.cat([module.train_set.labels, module.val_set.labels])
    assert labels.bincount().tolist() == [6_000] * 10
    assert module.test_set.labels.bincount().tolist() == [1_000] * 10
    assert [module.class_names[label] for label in module.test_set.labels[:3]] == [
        "Ankle boot",
        "Pullover",
        "Trouser",
    ]


@pytest.mark.parametrize("use", [MNISTDataModule.prepare_data, lambda module: module.setup("fit")])
def test_a_missing_folder_says_where_it_looked_and_what_to_do(use: Any, tmp_path: Path) -> None:
    module = MNISTDataModule(root=str(tmp_path / "nowhere"))
    assert (module.num_classes, module.input_shape) == (10, (1, 28, 28))  # known before any file is read
    with pytest.raises(FileNotFoundError) as error:
        use(module)
    for part in (str(tmp_path / "nowhere/MNIST/raw"), "train-images-idx3-ubyte", "root", "download: true"):
        assert part in str(error.value)


def test_one_missing_file_is_named(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no file t10k-labels-idx1-ubyte or t10k-labels"):
        MNISTDataModule(root=str(tmp_path)).prepare_data()


def test_labels_of_another_number_than_images(tmp_path: Path) -> None:
    write_small(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))
    with pytest.raises(ValueError, match="MNISTDataModule, training set: 12 images need labels"):
        MNISTDataModule(root=str(tmp_path), val_size=0).setup("fit")


def test_a_failed_download_says_what_to_do(tmp_path: Path) -> None:
    class Unreachable(torchvision.datasets.MNIST):  # type: ignore[misc]
        mirrors = ("http://127.0.0.1:9/",)  # the discard port: nothing listens there

    class Module(MNISTDataModule):
        source = Unreachable

    with pytest.raises(ConnectionError, match=r"(?s)could not download Unreachable to .*Fetch the files elsewhere"):
        Module(root=str(tmp_path), download=True).prepare_data()


def test_nothing_is_downloaded_where_the_files_are(tmp_path: Path) -> None:
    class Untouchable(torchvision.datasets.MNIST):  # type: ignore[misc]
        def download(self) -> None:
            raise AssertionError("downloaded")

    class Module(MNISTDataModule):
        source = Untouchable

    write_small(tmp_path)
    read(Module(root=str(tmp_path), download=True, val_size=2))
