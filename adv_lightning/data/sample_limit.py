"""The first so many examples of a set, dealt out to processes."""

from __future__ import annotations

__all__ = ["within_limit"]


def within_limit(samples: int | None, rank: int, world_size: int, seen: int, batch: int) -> int:
    """Return how many examples of this batch are among the first `samples` of the set, dealt out in turn to processes.

    Args:
        samples: Number of examples over all processes. None: all.
        rank: Number of this process.
        world_size: Number of processes.
        seen: Examples that this process has had before.
        batch: Examples in this batch.
    """
    if samples is None:
        return batch
    own = -(-(samples - rank) // world_size)
    return max(0, min(batch, own - seen))
