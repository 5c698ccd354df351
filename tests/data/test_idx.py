from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from torchvision.datasets.mnist import read_image_file

from adv_lightning.data.idx import read_idx

HEADER = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (2, 3, 4))
PIXELS = bytes(range(24))

both = pytest.mark.parametrize("name", ["images", "images.gz"])


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@both
def test_reads_what_torchvision_reads(name: str, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", HEADER + PIXELS)
    images = read_idx(write(tmp_path / name, HEADER + PIXELS), 3)
    assert torch.equal(images, read_image_file(str(plain)))
    assert torch.equal(images, torch.arange(24, dtype=torch.uint8).view(2, 3, 4))


@both
def test_refuses_a_wrong_length(name: str, tmp_path: Path) -> None:
    for data in (HEADER + PIXELS[:-1], HEADER + PIXELS + b"x", HEADER[:9], HEADER):
        with pytest.raises(ValueError, match=rf"{name} is damaged: .* {len(data)} bytes"):
            read_idx(write(tmp_path / name, data), 3)


@both
def test_refuses_another_format(name: str, tmp_path: Path) -> None:
    for magic in (bytes([0, 0, 8, 1]), bytes([0, 0, 13, 3]), b"<htm", b""):
        with pytest.raises(ValueError, match=rf"0x{magic.hex()},.* 0x00000803"):
            read_idx(write(tmp_path / name, magic and magic + HEADER[4:] + PIXELS), 3)


def test_refuses_a_damaged_gzip(tmp_path: Path) -> None:
    path, whole = tmp_path / "images.gz", HEADER + PIXELS
    for stored, reason in (
        (gzip.compress(whole)[:-9], "Compressed file ended"),
        (whole, "Not a gzipped file"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0\x07", "Error -3 while decompressing data"),
    ):
        path.write_bytes(stored)
        with pytest.raises(ValueError, match=rf"images.gz is damaged: {reason}"):
            read_idx(path, 3)


def test_refuses_an_empty_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels is empty.*\[0\]"):
        read_idx(write(tmp_path / "labels", bytes([0, 0, 8, 1, 0, 0, 0, 0])), 1)
