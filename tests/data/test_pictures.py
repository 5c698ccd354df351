"""Pictures as users have them: depths, orientation, transparency, endings, links, damage."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adv_lightning.data import ImageFolderDataModule
from adv_lightning.data.pictures import find_files

RAMP = np.arange(64).reshape(8, 8) * 4  # 0 to 252


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, of which `a` is filled by the test, and `b` holds one black picture."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "b").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "train" / "b" / "black.png")
    return tmp_path


def read(root: Path) -> torch.Tensor:
    """The pixels of class a, uint8 [N, 3, 8, 8]."""
    module = ImageFolderDataModule(root=str(root), image_size=8)
    module.setup("fit")
    assert module.train_set is not None
    return module.train_set.images[module.train_set.labels == 0]


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (RAMP.astype(np.uint8), "8.png"),
        ((RAMP * 257).astype(np.uint16), "16.png"),
        ((RAMP * 257).astype(np.uint16), "16.tiff"),
        ((RAMP * 257).astype(np.uint16), "16.pgm"),
        ((RAMP / 255).astype(np.float32), "float.tiff"),
        (np.repeat(RAMP.astype(np.uint8)[..., None], 3, axis=2), "colour.bmp"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_depth_has_the_same_brightness(pixels: np.ndarray, name: str, root: Path) -> None:
    Image.fromarray(pixels).save(root / "train" / "a" / name)
    assert torch.equal(read(root)[0], torch.tensor(RAMP, dtype=torch.uint8).expand(3, 8, 8))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_white_may_be_zero_in_a_tiff(kind: type[np.generic], root: Path) -> None:
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[kind]
    pixels = ((255 - RAMP) * scale).astype(kind)
    Image.fromarray(pixels).save(root / "train" / "a" / "white.tiff", tiffinfo={262: 0})
    with Image.open(root / "train" / "a" / "white.tiff") as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    if kind is np.uint8:  # Pillow writes such a file as it is, and inverts it when it is read
        assert read(root)[0, 0, 0, 1] in (4, 251)
        return
    assert torch.equal(read(root)[0], torch.tensor(RAMP, dtype=torch.uint8).expand(3, 8, 8))


def test_signed_pixels_are_named(root: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint8)).save(root / "train" / "a" / "signed.tiff", tiffinfo={339: 2})
    with pytest.raises(ValueError, match=r"signed\.tiff as a picture: its pixels are signed integers"):
        read(root)


def test_transparent_grey_of_16_bits_is_white(root: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.tobytes() for row in (RAMP * 257).astype(">u2"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 0, 0, 0, 0))
    parts = [
        header,
        chunk(b"tRNS", struct.pack(">H", 4 * 257)),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    (root / "train" / "a" / "grey.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    expected = torch.tensor(np.where(RAMP == 4, 255, RAMP), dtype=torch.uint8)
    assert torch.equal(read(root)[0], expected.expand(3, 8, 8))


def test_one_folder_is_not_two_classes(root: Path) -> None:
    (root / "train" / "c").symlink_to(root / "train" / "b")
    Image.new("L", (8, 8)).save(root / "train" / "a" / "black.png")
    with pytest.raises(ValueError, match=r"train/b and .*train/c are the same folder"):
        read(root)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ((RAMP * 257).astype(np.int32), "32-bit integers"),
        (RAMP.astype(np.float32), r"from 0 to 252, not 0 to 1"),
        (np.full((8, 8), np.nan, np.float32), "from nan to nan"),
        (RAMP.astype(np.float32) / 255 - 0.1, r"from -0.1 to"),
    ],
)
def test_names_a_file_whose_range_is_not_known(pixels: np.ndarray, words: str, root: Path) -> None:
    Image.fromarray(pixels).save(root / "train" / "a" / "odd.tiff")
    with pytest.raises(ValueError, match=rf"cannot read .*a/odd\.tiff as a picture: .*{words}"):
        read(root)


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.tiff", "turned.webp"])
def test_turns_pictures_upright(name: str, root: Path) -> None:
    upright = Image.new("RGB", (8, 8))
    upright.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it
    upright.rotate(90).save(root / "train" / "a" / name, exif=exif)
    seen = read(root)[0].float().mean((0, 2))
    assert seen[:3].min() > 240
    assert seen[5:].max() < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(mode: str, root: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    image.convert(mode).save(root / "train" / "a" / "0.png")
    seen = read(root)[0]
    assert torch.equal(seen[:, :, 4:], torch.full((3, 8, 4), 255, dtype=torch.uint8))
    assert torch.equal(seen[2, :, :4], torch.full((8, 4), 76 if mode == "LA" else 0, dtype=torch.uint8))


def test_a_colour_may_be_the_transparent_one(root: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "train" / "a" / "0.png", transparency=(1, 2, 3))
    assert read(root).min() == 255


def test_known_by_content_and_not_by_name(root: Path) -> None:
    folder = root / "train" / "a"
    grey = Image.new("L", (8, 8), 100)
    grey.save(folder / "0.gif")
    grey.save(folder / "1.jfif", format="JPEG")
    grey.save(folder / "2", format="PNG")
    grey.save(folder / "3.txt", format="PNG")
    grey.save(folder / "4.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)])
    assert torch.equal(read(root), torch.full((5, 3, 8, 8), 100, dtype=torch.uint8))


def test_counts_what_is_left_out(root: Path) -> None:
    folder = root / "train" / "a"
    Image.new("L", (8, 8), 7).save(folder / "0.png")
    (folder / "notes.txt").write_text("P is not for PPM")
    (folder / "empty").touch()
    (folder / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")  # Pillow would run a program
    (root / "train" / "labels.csv").write_text("0.png,a")
    with (
        pytest.warns(UserWarning, match=r"train: files that are not pictures: 3 left out, first a/empty"),
        pytest.warns(UserWarning, match=r"train: files beside .*: 1 left out, first labels\.csv"),
    ):
        images = read(root)
    assert torch.equal(images, torch.full((1, 3, 8, 8), 7, dtype=torch.uint8))


def test_passes_over_what_is_hidden(root: Path) -> None:
    for folder in (root / "train" / ".ipynb_checkpoints", root / "train" / "a" / ".thumbs"):
        folder.mkdir()
        Image.new("L", (8, 8)).save(folder / "0.png")
    (root / "train" / "a" / "._0.png").write_bytes(b"\0")
    (root / "train" / ".DS_Store").touch()
    Image.new("L", (8, 8), 7).save(root / "train" / "a" / "0.png")
    module = ImageFolderDataModule(root=str(root), image_size=8)
    assert module.class_names == ["a", "b"]
    assert len(read(root)) == 1
    with pytest.raises(FileNotFoundError, match="no pictures in"):
        ImageFolderDataModule(root=str(root / "train"))  # its only candidate would be hidden


@pytest.mark.parametrize("target", ["..", "../..", "../b", ".", "sub"])
def test_a_link_is_not_followed_round(target: str, root: Path) -> None:
    folder = root / "train" / "a"
    (folder / "sub").mkdir()
    Image.new("L", (8, 8), 7).save(folder / "sub" / "0.png")
    (folder / "zlink").symlink_to(target)
    with pytest.warns(UserWarning, match=r"train: links to folders that are read already: 1 left out, first a/zlink"):
        assert len(read(root)) == 1


def test_links_to_other_places_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    Image.new("L", (8, 8), 7).save(other / "0.png")
    (root / "train" / "a" / "more").symlink_to(other)
    (root / "train" / "a" / "one.png").symlink_to(other / "0.png")
    assert len(read(root)) == 2


def test_order_is_by_folder_and_name(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "a/z.png", "a/sub/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_files([tmp_path / "a", tmp_path / "b"])
    names = [str(file.relative_to(tmp_path)) for file in found.files]
    assert names == ["a/z.png", "a/sub/0.png", "b/10.png", "b/2.png"]
    assert found.labels == [0, 0, 1, 1]


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def damaged(kind: str, file: Path) -> None:
    whole = file.with_name("whole.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    content = bytearray(whole.read_bytes())
    whole.unlink()
    if kind == "cut short":
        content = content[: len(content) // 2]
    elif kind == "header":
        content[12:30] = bytes(18)
    elif kind == "bomb":
        content = bytearray(bomb())
    elif kind == "empty":
        content = bytearray()
    elif kind == "narrow":
        Image.new("L", (1, 3_000_000)).save(file)
        return
    file.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut short", "header", "bomb", "empty", "narrow"])
def test_names_a_damaged_file_in_one_line(kind: str, root: Path) -> None:
    damaged(kind, root / "train" / "a" / "bad.png")
    with pytest.raises(ValueError, match=r"cannot read .*a/bad\.png as a picture") as error:
        read(root)
    assert "\n" not in str(error.value)


def test_names_a_file_that_may_not_be_read(root: Path) -> None:
    file = root / "train" / "a" / "gone.png"
    file.symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"cannot read .*a/gone\.png as a picture"):
        read(root)


def test_test_part_val_with_a_folder_of_its_own(root: Path) -> None:
    for part, value in (("train", 7), ("val", 9)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), value).save(root / part / name / "0.png")
    module = ImageFolderDataModule(root=str(root), image_size=8, test_part="val")
    module.setup("test")
    assert module.test_set is not None
    assert module.test_set.images.unique().tolist() == [9]
    os.rename(root / "val", root / "elsewhere")
    with pytest.raises(ValueError, match="test_part='val' needs validation images"):
        ImageFolderDataModule(root=str(root), image_size=8, test_part="val")
