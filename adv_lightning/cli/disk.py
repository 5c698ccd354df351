"""The disk that a run writes to: that it can be, and what is said when it is full."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_folder(folder: str) -> None:
    """Make the folder if it is not there.

    Raises:
        ValueError: it cannot be, or nothing can be written to it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ValueError(
            f"nothing can be written to {folder} ({error.strerror}): give a folder that can, as in "
            "--trainer.default_root_dir=DIR"
        ) from None


@contextmanager
def full_disk_named(folder: str) -> Iterator[None]:
    """Say so, and which disk it is, where a run that writes to `folder` ends because the disk is full.

    Raises:
        OSError: it is, or a quota or the largest size of a file is reached.
    """
    usual = threading.excepthook

    def hook(args: Any) -> None:
        if not _is_full(args.exc_value):  # TensorBoard's thread hands its error on to the main one
            usual(args)

    threading.excepthook = hook
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        disk = shutil.disk_usage(folder)
        where = f" for {error.filename}" if error.filename else ""
        raise OSError(
            f"{error.strerror}{where}, while writing below {folder}, whose disk has {disk.free / 2**20:.0f} of "
            f"{disk.total / 2**20:.0f} MiB free: make room, or go on elsewhere with --trainer.default_root_dir=DIR and "
            "--ckpt_path of the last checkpoint"
        ) from error
    finally:
        threading.excepthook = usual


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL
