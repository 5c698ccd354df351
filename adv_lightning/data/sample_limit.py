"""A limit on the number of examples, shared by the processes."""

from __future__ import annotations


def within_limit(samples: int | None, rank: int, world_size: int, seen: int, batch: int) -> int:
    """Return how many examples of a batch are among the first `samples` of the set.

    Example i of the set is in process i modulo `world_size`, as with an unpadded `ShardedSampler`.

    Args:
        samples: Limit over all processes. None: no limit.
        rank: Rank of this process.
        world_size: Number of processes.
        seen: Number of examples that this process had before this batch.
        batch: Number of examples in this batch.
    """
    if samples is None:
        return batch
    own = -(-(samples - rank) // world_size)
    return max(0, min(batch, own - seen))
