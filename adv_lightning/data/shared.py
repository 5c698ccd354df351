"""Tensors that one process of a node reads and all of its processes map."""

import os
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import IO, Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

__all__ = ["once_a_node"]

T = TypeVar("T")

_TIMEOUT = timedelta(days=1)
"""How long the others wait while the first process reads; if that ends, they know at once."""


def once_a_node(read: Callable[[], T], trainer: Trainer | None) -> T:
    """Return ``read()``, called by the first process of each node alone where a node has several.

    The others map the same memory, through a file without a name in the temporary folder (``TMPDIR``): it is gone
    with the last process, however that ends. Where there is no room for it, or no ``/proc``, each process calls
    ``read`` itself and a warning says so. Every process of the trainer must call this.

    Args:
        read: Returns tensors, in tuples or alone, or None.
        trainer: The trainer whose processes share. None: nothing is shared.
    """
    if trainer is None or trainer.num_devices == 1 or not dist.is_initialized():
        return read()
    group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)
    try:
        data = read() if trainer.local_rank == 0 else None
        file = None if data is None else _written(data)
        path = None if file is None else f"/proc/{os.getpid()}/fd/{file.fileno()}"
        told: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(told, (trainer.node_rank, trainer.local_rank, path), group=group)
        mapped: T | None = _mapped(next(path for node, rank, path in told if (node, rank) == (trainer.node_rank, 0)))
        dist.barrier(group)  # all have it open
        if file is not None:
            file.close()
    finally:
        dist.destroy_process_group(group)
    data = data if mapped is None else mapped
    return read() if data is None else data


def _written(data: object) -> IO[bytes] | None:
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # it lives until all have it open
        torch.save(data, file)
        file.flush()
    except (OSError, RuntimeError) as error:  # torch's writer turns the former into the latter
        _say(f"cannot write to the temporary folder (TMPDIR): {error}")
        return None
    return file


def _mapped(path: str | None) -> Any:
    if path is None:
        return None
    try:
        return torch.load(path, mmap=True)
    except OSError as error:
        _say(f"cannot open {path}: {error}")
        return None


def _say(why: str) -> None:
    warnings.warn(f"each process reads the data and holds them in memory for itself: {why}", stacklevel=2)
