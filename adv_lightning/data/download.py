"""What a failed download tells the user."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["downloading"]


@contextmanager
def downloading(name: str, root: str) -> Iterator[None]:
    """Make a ConnectionError that says what to do of whatever stops a download."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"could not download {name} to {Path(root).absolute()}: {error}. Fetch the files elsewhere, put "
            "them there and leave out download, or set root to a folder that has them"
        ) from error
