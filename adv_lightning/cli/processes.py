"""One process of several, when another of them ends."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

_STARTER = "ADV_LIGHTNING_STARTER"
"""The environment variable that tells a process which one started it."""
_GRACE = 20.0


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or answers no more."""


@contextmanager
def one_of_several(trainer: Trainer) -> Iterator[None]:
    """Let no process outlive a run that another has broken off, nor end before those that it started.

    Lightning ends the process that started the others when one of them fails. When that one itself is killed, the
    others end at their next exchange with it; one that waits for it to answer for the first time would do so for half
    an hour, so each watches its parent as well, and ends 20 s after it.

    Raises:
        LostProcessError: gloo has lost the connection to another process, or one that was started here has failed.
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
        if "/gloo/transport/" not in str(error):  # gloo raises nothing more special
            raise
        reason = re.sub(r"^\[\S*\] ", "", str(error)).partition(". ")[0]
        raise LostProcessError(
            f"process {trainer.global_rank} of {trainer.world_size} has lost another one, which has ended or answers "
            f"no more ({reason}). {_advice(trainer)}"
        ) from None
    finally:
        os.environ.pop(_STARTER, None)
    if launcher is not None and any(process.wait() for process in launcher.procs):
        raise LostProcessError(f"another process has failed after the end of this one. {_advice(trainer)}")


def _end_after(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(1)
    time.sleep(_GRACE)  # for what it still says and writes
    os._exit(1)


def _advice(trainer: Trainer) -> str:
    checkpoint: Any = trainer.checkpoint_callback
    path = getattr(checkpoint, "last_model_path", "") or getattr(checkpoint, "best_model_path", "")
    if not path:
        return "There is no checkpoint; give the command again"
    return f"The newest checkpoint is {path}; to go on from there, give the command again with --ckpt_path={path}"
