"""What a command changes for the whole process, put back when it ends."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored() -> Iterator[None]:
    """Put environment variables and the filters of warnings back as they were.

    Lightning writes the seed and the addresses of a process group to the environment, and leaves them there. Signal
    handlers and thread hooks are put back by what sets them.
    """
    before = dict(os.environ)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
