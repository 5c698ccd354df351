"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def partial_file(path: Path) -> Iterator[BinaryIO]:
    """Open `<path>.partial` for writing, and rename it to `path` once it is on the disk.

    A reader, or a process that was killed, finds the old file or the new one, never a part. If writing fails, the
    partial file is removed and the old file is kept.

    Args:
        path: The file to write. Missing folders are created, and an existing file is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    if partial.is_symlink():  # writing would go through it to a file elsewhere
        partial.unlink()
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            partial.unlink()
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a file as with `partial_file`.

    Args:
        path: The file to write. Missing folders are created, and an existing file is replaced.
        content: The whole content of the file.
    """
    with partial_file(path) as file:
        file.write(content)
