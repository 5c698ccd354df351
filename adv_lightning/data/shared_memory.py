"""Data that one process of a node reads and all processes of the node share in memory."""

import os
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import IO, Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

T = TypeVar("T")

_TIMEOUT = timedelta(days=1)
"""How long the other processes wait while the first one reads. If it dies, they notice at once."""


def once_a_node(read: Callable[[], T], trainer: Trainer | None) -> T:
    """Return `read()`. If a node has several processes, only the first one calls it.

    The others map the same memory, through an unnamed file in the temporary folder (`TMPDIR`). The file disappears
    with the last process, however that ends. If the folder has no room, or there is no `/proc`, each process calls
    `read` itself and a warning says so. Every process of the trainer must call this.

    Args:
        read: Returns a tensor, tuples of tensors, or None.
        trainer: Trainer of the processes. None: nothing is shared.
    """
    if trainer is None or trainer.num_devices == 1 or not dist.is_initialized():
        return read()
    group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)
    try:
        data = read() if trainer.local_rank == 0 else None
        file = None if data is None else _write(data)
        path = None if file is None else f"/proc/{os.getpid()}/fd/{file.fileno()}"
        paths: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(paths, (trainer.node_rank, trainer.local_rank, path), group=group)
        mapped: T | None = _map(next(path for node, rank, path in paths if (node, rank) == (trainer.node_rank, 0)))
        dist.barrier(group)  # until all have it open
        if file is not None:
            file.close()
    finally:
        dist.destroy_process_group(group)
    data = data if mapped is None else mapped
    return read() if data is None else data


def _write(data: object) -> IO[bytes] | None:
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # stays open until all processes have it open
        torch.save(data, file)
        file.flush()
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        _warn(f"cannot write to the temporary folder (TMPDIR): {error}")
        return None
    return file


def _map(path: str | None) -> Any:
    if path is None:
        return None
    try:
        return torch.load(path, mmap=True)
    except OSError as error:
        _warn(f"cannot open {path}: {error}")
        return None


def _warn(why: str) -> None:
    warnings.warn(f"each process reads the data and keeps its own copy in memory: {why}", stacklevel=2)
