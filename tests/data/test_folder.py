from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from adv_lightning.data import ImageFolderDataModule

COLOURS = {"ant": (250, 0, 0), "bee": (0, 240, 0), "cat": (0, 0, 230)}


def fill(root: Path, part: str, number: int, names: tuple[str, ...] = tuple(COLOURS)) -> None:
    """Pictures of one colour per class, some wide and some tall."""
    for name in names:
        folder = root / part / name
        folder.mkdir(parents=True)
        for i in range(number):
            size = (20, 12) if i % 2 else (9, 16)
            Image.new("RGB", size, COLOURS[name]).save(folder / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path, "train", 5)
    fill(tmp_path, "test", 2)
    return tmp_path


def test_shapes_and_names_need_no_picture(root: Path) -> None:
    for file in root.glob("train/*/*"):
        file.write_bytes(b"not a picture")
    module = ImageFolderDataModule(root=str(root), image_size=8)
    assert (module.num_classes, module.class_names, module.input_shape) == (3, list(COLOURS), (3, 8, 8))


def test_labels_are_the_folders(root: Path) -> None:
    module = ImageFolderDataModule(root=str(root), image_size=8, val_size=3)
    module.setup("fit")
    module.setup("test")
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.test_set is not None
    assert (len(module.train_set), len(module.test_set)) == (12, 6)
    assert module.val_set.labels.tolist() == [0, 1, 2]  # in proportion
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.uint8)
    for data in (module.train_set, module.val_set, module.test_set):
        assert data.images.shape[1:] == (3, 8, 8)
        assert torch.equal(data.images, colours[data.labels][:, :, None, None].expand(-1, -1, 8, 8))


def test_crops_the_centre(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        picture = Image.new("L", (16, 8), 9)  # grey, twice as wide as high: the 8 centre columns are kept
        picture.paste(77, (4, 0, 12, 8))
        picture.save(tmp_path / "train" / name / "0.png")
    module = ImageFolderDataModule(root=str(tmp_path), image_size=8)
    module.setup("fit")
    assert module.train_set is not None
    assert torch.equal(module.train_set.images, torch.full((2, 3, 8, 8), 77, dtype=torch.uint8))


def test_a_folder_val_is_the_validation_set(root: Path) -> None:
    fill(root, "val", 1)
    module = ImageFolderDataModule(root=str(root), image_size=8)
    module.setup("fit")
    assert module.train_set is not None
    assert module.val_set is not None
    assert (len(module.train_set), len(module.val_set)) == (15, 3)
    with pytest.raises(ValueError, match=rf"val_size=2.*{root}/val"):
        ImageFolderDataModule(root=str(root), val_size=2)


def test_a_part_without_a_class_keeps_the_labels(tmp_path: Path) -> None:
    fill(tmp_path, "train", 2)
    fill(tmp_path, "test", 2, names=("bee", "cat"))
    module = ImageFolderDataModule(root=str(tmp_path), image_size=8)
    module.setup("test")
    assert module.test_set is not None
    assert module.test_set.labels.tolist() == [1, 1, 2, 2]


def test_refuses_a_class_that_train_does_not_have(tmp_path: Path) -> None:
    fill(tmp_path, "train", 2, names=("ant", "bee"))
    fill(tmp_path, "test", 2)
    module = ImageFolderDataModule(root=str(tmp_path), image_size=8)
    with pytest.raises(ValueError, match=r"test has .*train .*: cat\."):
        module.setup("test")


def test_training_needs_no_test_folder(tmp_path: Path) -> None:
    fill(tmp_path, "train", 2)
    module = ImageFolderDataModule(root=str(tmp_path), image_size=8)
    module.setup("fit")
    assert len(module.train_dataloader()) == 1
    with pytest.raises(FileNotFoundError, match=f"no pictures in {tmp_path}/test"):
        module.setup("test")


def test_refuses_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no pictures in {tmp_path}/train: .*Set root"):
        ImageFolderDataModule(root=str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"ImageFolderDataModule, training set: .*empty"):
        ImageFolderDataModule(root=str(tmp_path)).setup("fit")


def test_refuses_a_file_that_is_not_a_picture(root: Path) -> None:
    (root / "train" / "bee" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read .*bee/2\.png"):
        ImageFolderDataModule(root=str(root)).setup("fit")


def test_augments(root: Path) -> None:
    module = ImageFolderDataModule(root=str(root), image_size=16, augment=True)
    module.setup("fit")
    x, _ = next(iter(module.train_dataloader()))
    assert x.shape == (15, 3, 16, 16)
    assert (x == 0).flatten(1).all(1).sum() == 0
    black = (x == 0).all(1).flatten(1).any(1)  # a shift by up to two pixels lets black in
    assert black.any()
    assert not (x == 0).all(1)[:, 2:-2, 2:-2].any()


def test_refuses_an_image_size_below_1(root: Path) -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"image_size.*{size}"):
            ImageFolderDataModule(root=str(root), image_size=size)
