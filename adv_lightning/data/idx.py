"""A reader of IDX files, the format of MNIST."""

import gzip
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor


def read_idx(path: Path, ndim: int) -> Tensor:
    """Read an IDX file of unsigned bytes, plain or, with the suffix `.gz`, compressed.

    torchvision's reader neither reads compressed files nor checks that a file is complete.

    Args:
        path: The file.
        ndim: Expected number of dimensions: 1 for labels, 3 for images.

    Returns:
        uint8 tensor with the shape in the file's header.

    Raises:
        ValueError: the file is not an IDX file of bytes in `ndim` dimensions, is damaged or cut short, or is empty.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}. Download it again") from error
    magic = bytes([0, 0, 8, ndim])
    header = 4 + 4 * ndim
    if data[:4] != magic:
        raise ValueError(
            f"{path} is not an IDX file of bytes in {ndim} dimensions: it starts with 0x{data[:4].hex()}, expected "
            f"0x{magic.hex()}"
        )
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4)]
    if len(data) != header + prod(shape):
        raise ValueError(
            f"{path} is damaged: it has {len(data)} bytes, but its header with the shape {shape} needs "
            f"{header + prod(shape)}. Download it again"
        )
    if prod(shape) == 0:
        raise ValueError(f"{path} is empty: its header gives the shape {shape}. Download it again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header).view(shape)
