"""Paths that a checkpoint holds: data from a file, which may name anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def is_inside(path: str | Path, folder: str | Path | None) -> bool:
    """Whether a path leads to a place below a folder, with `..` and links followed.

    Args:
        path: The path of a file that need not exist, or an address such as s3://...
        folder: None or "": there is no such place.
    """
    if not folder:
        return False
    if "://" in str(path) or "://" in str(folder):
        return str(path).startswith(f"{folder}/") and ".." not in str(path).split("/")
    try:
        return Path(folder).resolve() in Path(path).resolve().parents
    except (OSError, ValueError, RuntimeError):  # no path at all, such as one with a null byte, or a loop of links
        return False


def found_again(path: str, folders: Iterable[str | Path | None]) -> str:
    """Return where a stored checkpoint is now, or "" if it is not there any more.

    That is for reading it. What may be removed or replaced is for `is_inside` to say.

    Args:
        path: As a checkpoint holds it. An address is taken only if it lies in one of the folders.
        folders: Where a file of its name is looked for if the path leads to none, because its folder was moved. None
            where there is no such folder.
    """
    known = [str(folder) for folder in folders if folder]
    if "://" in path:
        return path if any(is_inside(path, folder) for folder in known) else ""
    if _is_file(path):
        return path
    here = [os.path.join(folder, os.path.basename(path)) for folder in known if os.path.basename(path)]
    return next(filter(_is_file, here), "")


def is_same(path: str | Path, other: str | Path | None) -> bool:
    """Whether two paths lead to the same place."""
    try:
        return other is not None and Path(path).resolve() == Path(other).resolve()
    except (OSError, ValueError, RuntimeError):
        return False


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
