"""Tensors that one process of a node reads and all of its processes map."""

import os
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

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
        with tempfile.TemporaryFile() as file:
            path = _write(read(), file) if trainer.local_rank == 0 else None
            paths: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(paths, (trainer.node_rank, trainer.local_rank, path), group=group)
            own = next(path for node, local, path in paths if (node, local) == (trainer.node_rank, 0))
            data: T = read() if own is None else _map(own, read)
            dist.barrier(group)
        return data
    finally:
        dist.destroy_process_group(group)


def _write(data: object, file: Any) -> str | None:
    try:
        torch.save(data, file)
        file.flush()
    except (OSError, RuntimeError) as error:  # torch's writer turns the former into the latter
        _say(f"cannot write to the temporary folder {tempfile.gettempdir()} (TMPDIR): {error}")
        return None
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _map(path: str, read: Callable[[], T]) -> T:
    try:
        data: T = torch.load(path, mmap=True)
    except OSError as error:
        _say(f"cannot open {path}: {error}")
        return read()
    return data


def _say(why: str) -> None:
    warnings.warn(f"The data are read by each process, and lie in memory once for each: {why}", stacklevel=2)
