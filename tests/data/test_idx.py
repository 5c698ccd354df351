import gzip
from pathlib import Path

import pytest
import torch
from torchvision.datasets.mnist import read_image_file

from adv_lightning.data.idx import read_idx

HEADER = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (2, 3, 4))
PIXELS = bytes(range(24))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_it_reads_what_torchvision_reads(name: str, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", HEADER + PIXELS)
    images = read_idx(write(tmp_path / name, HEADER + PIXELS), 3)
    assert torch.equal(images, read_image_file(str(plain)))
    assert torch.equal(images, torch.arange(24, dtype=torch.uint8).view(2, 3, 4))


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("data", [HEADER + PIXELS[:-1], HEADER + PIXELS + b"x", HEADER[:9], HEADER])
def test_a_file_of_the_wrong_length_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name} is damaged: its header promises .* it holds {len(data)}"):
        read_idx(write(tmp_path / name, data), 3)


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("magic", [bytes([0, 0, 8, 1]), bytes([0, 0, 13, 3]), b"<htm", b""])
def test_another_kind_of_file_is_refused(name: str, magic: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"begins with 0x{magic.hex()}, not 0x00000803"):
        read_idx(write(tmp_path / name, magic and magic + HEADER[4:] + PIXELS), 3)


def test_a_compressed_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(HEADER + PIXELS)[:-9])
    with pytest.raises(ValueError, match=r"images.gz is damaged: Compressed file ended"):
        read_idx(path, 3)


def test_a_file_that_is_not_compressed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(HEADER + PIXELS)
    with pytest.raises(ValueError, match=r"images.gz is damaged: Not a gzipped file"):
        read_idx(path, 3)


def test_a_compressed_file_with_a_broken_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\0\x07")
    with pytest.raises(ValueError, match=r"images.gz is damaged: Error -3 while decompressing data"):
        read_idx(path, 3)


def test_a_file_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels holds nothing: its header says the shape \[0\]"):
        read_idx(write(tmp_path / "labels", bytes([0, 0, 8, 1, 0, 0, 0, 0])), 1)
