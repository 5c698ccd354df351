"""Processes of torch.distributed, forked from one that has imported the libraries, so that imports are paid for once.

`python -m tests.support.forks MODULE FOLDER` runs `python -m MODULE FOLDER` as two of them, which keep their output in
FOLDER/<rank>.log. The process that forks must have no threads.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only as lightning_rank
from torchmetrics.utilities.prints import rank_zero_only as torchmetrics_rank

import adv_lightning.cli  # noqa: F401  # what each of them would import

LIMIT = 240
"""Seconds after which processes are killed."""


def fork(folder: Path, processes: int, run: Callable[[], Any]) -> list[int]:
    """Fork processes that call `run`, with their output in `<rank>.log`; return their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sys.stdout.flush()
    return [os.fork() or _child(folder, rank, processes, port, run) for rank in range(processes)]


def _child(folder: Path, rank: int, processes: int, port: int, run: Callable[[], Any]) -> int:
    code = 1
    try:
        log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if processes > 1:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
            lightning_rank.rank = torchmetrics_rank.rank = rank  # they looked when they were imported
        run()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pids: Sequence[int]) -> list[int]:
    """Wait for all processes and return their exit statuses, negative for signals."""
    codes: dict[int, int] = {}
    until = time.monotonic() + LIMIT
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            for pid in set(pids) - codes.keys():
                os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"processes {set(pids) - codes.keys()} have not ended in {LIMIT} s")
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


if __name__ == "__main__":
    module, folder = sys.argv.pop(1), Path(sys.argv[1])
    sys.exit(any(ended(fork(folder, 2, lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)))))
