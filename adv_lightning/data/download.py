"""Errors of a failed download."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def downloading(name: str, root: str) -> Iterator[None]:
    """Turn an error in a download into a ConnectionError that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"could not download {name} to {Path(root).absolute()}: {error}. Download the files into this folder by "
            "hand and remove download, or set root to a folder that has them"
        ) from error
