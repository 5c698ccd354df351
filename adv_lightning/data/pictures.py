"""Files of pictures: which files of a folder are pictures, and their pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, in Pillow's names. Its other formats run other programs, or have no mark that tells them from text."""


class NotAPictureError(ValueError):
    """A file that neither is a picture nor is named like one."""


class FoundFiles(NamedTuple):
    """The files below the folders of classes.

    Attributes:
        files: Paths, sorted by folder and then by name.
        labels: Index of each file's folder.
        repeated: Folders that a link leads to a second time, which are left out.
    """

    files: list[Path]
    labels: list[int]
    repeated: list[Path]


def find_files(folders: list[Path]) -> FoundFiles:
    """Find all files below folders, one folder a class, whatever their names end with.

    Hidden files and folders, whose names begin with a dot, are passed over. Links are followed, but no folder is
    entered twice, and none that contains the classes.

    Raises:
        ValueError: two classes are the same folder.
    """
    places: dict[Path, Path] = {}
    for folder in folders:
        if (other := places.setdefault(folder.resolve(), folder)) is not folder:
            raise ValueError(
                f"{other} and {folder} are the same folder, so its pictures would be of two classes. Remove the link"
            )
    seen = {parent for folder in folders for parent in (*folder.absolute().parents, *folder.resolve().parents)}
    seen |= {folder.resolve() for folder in folders}
    files, labels, repeated = [], [], []
    for label, folder in enumerate(folders):
        below: list[tuple[str, list[str]]] = []
        for path, names_of_folders, names in os.walk(folder, followlinks=True):
            below.append((path, sorted(name for name in names if not name.startswith("."))))
            entered = []
            # Links last, and always in the same order, so that what is read does not depend on the disk.
            for name in sorted(names_of_folders, key=lambda name: (os.path.islink(os.path.join(path, name)), name)):
                real = Path(path, name).resolve()
                if name.startswith("."):
                    continue
                if real in seen:
                    repeated.append(Path(path, name))
                    continue
                seen.add(real)
                entered.append(name)
            names_of_folders[:] = entered
        for path, names in sorted(below):
            files += [Path(path, name) for name in names]
            labels += [label] * len(names)
    return FoundFiles(files, labels, repeated)


def read_picture(path: Path, transform: Callable[[Image.Image], Tensor], largest: int) -> Tensor:
    """Read a picture as RGB: upright, 8 bits a channel, transparent pixels on white. Of several frames, the first.

    Pictures of 16 bits a channel are scaled to 8, and floating point pictures from [0, 1].

    Args:
        path: Place of the file.
        transform: Upright RGB picture -> what is returned.
        largest: Largest allowed ratio of the longer side to the shorter one.

    Raises:
        NotAPictureError: the file is no picture, and its name does not say that it is one.
        ValueError: the file is named like a picture but is none, is damaged, is too large or too narrow, or has pixels
            whose range is not known. The message names the file.
    """
    try:
        with _opened(path) as image:
            if max(image.size) > largest * min(image.size):
                raise ValueError(f"it has {image.width} x {image.height} pixels, and would be too large when resized")
            tags = dict(getattr(image, "tag_v2", {}))
            return transform(_rgb(ImageOps.exif_transpose(image), image.format, tags))
    except UnidentifiedImageError:
        if path.suffix.lower() not in _endings():
            raise NotAPictureError(str(path)) from None
        raise ValueError(f"cannot read {path} as a picture: its content is none. Replace or remove it") from None
    except Exception as error:  # decoders raise whatever they meet in a damaged file
        raise ValueError(f"cannot read {path} as a picture: {error}. Replace or remove it") from error


def _opened(path: Path) -> Image.Image:
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def _endings() -> set[str]:
    return {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}


_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
_SIGNED, _SAMPLE_FORMAT = 2, 339


def _rgb(image: Image.Image, file_format: str | None, tags: dict[int, Any]) -> Image.Image:
    if not image.mode.startswith(("I", "F")) and _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
        raise ValueError(
            "its pixels are signed integers, whose range is not known: save it with 8 or 16 bits, unsigned"
        )
    if image.mode.startswith("I") or image.mode == "F":
        grey = _eight_bits(image, file_format)
        # Pillow inverts such pictures of 8 bits itself.
        return (ImageOps.invert(grey) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey).convert("RGB")
    if "a" in "".join(image.getbands()).lower() or "transparency" in image.info:
        coloured = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGBA")).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    """Scale one channel of integers of 16 bits, or of floats in [0, 1], to integers of 8 bits."""
    pixels = np.asarray(image).astype(np.float64)
    if isinstance(transparent := image.info.get("transparency"), int):
        pixels[pixels == transparent] = 65535
    if image.mode == "F":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails too
            raise ValueError(f"its floating point pixels range from {pixels.min():g} to {pixels.max():g}, not 0 to 1")
        return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    if image.mode == "I" and file_format not in ("PNG", "PPM"):  # there Pillow keeps 16 bits in 32
        raise ValueError("its pixels are 32-bit integers, whose range is not known: save it with 8 or 16 bits")
    return Image.fromarray(np.rint(pixels / 257).astype(np.uint8))  # 65535 / 257 = 255
