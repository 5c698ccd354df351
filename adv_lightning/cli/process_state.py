"""What a command changes for the whole process, put back when it ends."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def restored() -> Iterator[None]:
    """Put environment variables and the filters of warnings back as they were.

    Lightning writes the seed and the addresses of a process group to the environment, and leaves them there. Signal
    handlers and thread hooks are put back by what sets them. After a command that did not fail, the process group stays
    for its trainer until Python exits, and is destroyed then.
    """
    before = dict(os.environ)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
    # gloo's threads may hold Python objects. One that lets go of them while Python shuts down aborts the process,
    # although the command has succeeded. Lightning destroys the groups of NCCL alone.
    if dist.is_available() and dist.is_initialized():
        atexit.register(_leave_group)


def _leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
