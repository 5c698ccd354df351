"""A reader of IDX files, the format of MNIST."""

import gzip
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["read_idx"]


def read_idx(path: Path, ndim: int) -> Tensor:
    """Read an IDX file of unsigned bytes, plain or, with the suffix ``.gz``, compressed.

    torchvision's reader takes neither compressed files nor care that a file is whole.

    Args:
        path: The file.
        ndim: Number of dimensions it must have: 1 for labels, 3 for images.

    Returns:
        uint8 tensor with the shape in the file's header.

    Raises:
        ValueError: The file is not such a file, is damaged or cut short, or holds nothing.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}. Fetch it again") from error
    magic = bytes([0, 0, 8, ndim])
    header = 4 + 4 * ndim
    if data[:4] != magic:
        raise ValueError(
            f"{path} is not an IDX file of bytes in {ndim} dimensions: it begins with 0x{data[:4].hex()}, "
            f"not 0x{magic.hex()}"
        )
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4)]
    if len(data) != header + prod(shape):
        raise ValueError(
            f"{path} is damaged: its header promises {header + prod(shape)} bytes for the shape {shape}, and "
            f"it holds {len(data)}. Fetch it again"
        )
    if prod(shape) == 0:
        raise ValueError(f"{path} holds nothing: its header says the shape {shape}. Fetch it again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header).view(shape)
