"""A run that ends because its disk is full, or because another of its processes has ended."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_STARTER = "ADV_LIGHTNING_STARTER"
"""The environment variable that tells a process which one started it."""
_GRACE = 20.0
"""Seconds for which a process outlives the one that started it."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer."""


def check_folder(folder: str) -> None:
    """Make the folder if it does not exist.

    Raises:
        ValueError: the folder cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}). Give another folder with --trainer.default_root_dir=DIR"
        ) from None


@contextmanager
def failed_writes_named(folder: str) -> Iterator[None]:
    """Say what happened when a run cannot write below `folder` any more: its disk is full, or its files were removed.

    Raises:
        OSError: the disk is full, a quota or the largest file size is reached, or the run's folder is gone.
    """
    usual = threading.excepthook

    def hook(args: Any) -> None:
        # TensorBoard's thread hands its error on to the main one.
        if not (_is_full(args.exc_value) or _removed(args.exc_value, folder)):
            usual(args)

    threading.excepthook = hook
    try:
        yield
    except OSError as error:
        if (gone := _removed(error, folder)) is not None:
            raise FileNotFoundError(
                f"{gone} was removed while the run was writing to it, and what it held is lost. Run the command again"
            ) from error
        if not _is_full(error):
            raise
        disk = shutil.disk_usage(folder)
        where = f" for {error.filename}" if error.filename else ""
        raise OSError(
            f"{error.strerror}{where}, while writing below {folder}. Its disk has {disk.free / 2**20:.0f} of "
            f"{disk.total / 2**20:.0f} MiB free. Make room, or continue in another folder: "
            "--trainer.default_root_dir=DIR --ckpt_path=CHECKPOINT"
        ) from error
    finally:
        threading.excepthook = usual


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL


def _removed(error: BaseException | None, folder: str) -> Path | None:
    """Return the folder below `folder` that is gone where a file could not be written."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str | bytes):
        return None
    parents = Path(os.path.abspath(os.fsdecode(error.filename))).parents
    below = [each for each in reversed(parents) if each.is_relative_to(os.path.abspath(folder))]
    return next((each for each in below if not each.exists()), None)


@contextmanager
def one_of_several(trainer: Trainer) -> Iterator[None]:
    """End each process of a run when another one has failed, and the process that started the others last.

    Lightning ends the process that started the others when one of those fails. When the starter itself is killed, the
    others fail at their next exchange with it. But one that waits for its first answer would wait for half an hour.
    So each also watches its parent, and ends 20 s after it.

    Raises:
        LostProcessError: gloo has lost the connection to another process, or a process that was started here failed.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher) or launcher.cluster_environment.creates_processes_externally:
        launcher = None  # this process starts no others
    starter = os.environ.pop(_STARTER, None)
    if launcher is not None:
        os.environ[_STARTER] = str(os.getpid())
    elif starter is not None and trainer.local_rank > 0:
        threading.Thread(target=_end_after, args=(int(starter),), daemon=True, name="parent-observer").start()
    try:
        yield
    except RuntimeError as error:
        if "/gloo/transport/" not in str(error):  # gloo has no exception class of its own
            raise
        reason = re.sub(r"^\[\S*\] ", "", str(error)).partition(". ")[0]
        raise LostProcessError(
            f"process {trainer.global_rank} of {trainer.world_size} has lost the connection to another process "
            f"({reason}). {_advice(trainer)}"
        ) from None
    finally:
        os.environ.pop(_STARTER, None)
    if launcher is not None and any(process.wait() for process in launcher.procs):
        raise LostProcessError(f"another process failed after this one had finished. {_advice(trainer)}")


def _end_after(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(1)
    time.sleep(_GRACE)  # for what it still prints and writes
    os._exit(1)


def _advice(trainer: Trainer) -> str:
    checkpoint: Any = trainer.checkpoint_callback
    path = getattr(checkpoint, "last_model_path", "") or getattr(checkpoint, "best_model_path", "")
    if not path:
        return "No checkpoint was written: run the command again"
    return f"The newest checkpoint is {path}. To continue from it, run the command again with --ckpt_path={path}"
