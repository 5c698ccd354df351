"""A limit on the number of examples, shared by the processes, and whether it leaves the classes in proportion."""

from __future__ import annotations

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

_DEVIATIONS = 4


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


class ClassShares:
    """Compares the classes of the first examples with those of all, in one process.

    The project's data modules give the classes in proportion to any first n examples. A user's own loader may be sorted
    by class, and its first examples of one class.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None  # of all examples, and of the first ones

    def add(self, y: Tensor, first: int, classes: int) -> None:
        """Add a batch, without waiting for the device.

        Args:
            y: Labels, [B], from 0 to `classes` - 1.
            first: How many of them, at the start of the batch, are among the first examples.
            classes: Number of classes.
        """
        if y.dim() != 1:
            return
        if self._counts is None:
            self._counts = torch.zeros(2, classes, dtype=torch.int64, device=y.device)
        labels, ones = y.long().clamp(0, classes - 1), torch.ones_like(y, dtype=torch.int64)
        self._counts[0].scatter_add_(0, labels, ones)
        self._counts[1].scatter_add_(0, labels[:first], ones[:first])

    def warn(self, argument: str) -> None:
        """Warn, on rank zero, if some class is more or less frequent among the first examples than chance allows.

        Args:
            argument: What limits the examples, such as "max_samples=64".
        """
        if self._counts is None:
            return
        whole, first = self._counts.double().cpu()
        n, share = first.sum(), whole / whole.sum()
        expected = n * share
        slack = 1 + _DEVIATIONS * (expected * (1 - share)).sqrt()
        beyond = (first - expected).abs() - slack
        if n == 0 or not (beyond > 0).any():
            return
        worst = int(beyond.argmax())
        rank_zero_warn(
            f"{argument} took the first examples of the loader, {first[worst]:.0f} of {n:.0f} of class {worst}, which "
            f"has {whole[worst]:.0f} of all {whole.sum():.0f}: the error under attack is not that of the whole set. "
            "Put the set in a fixed random order, with torch.utils.data.Subset(dataset, order), or judge all examples"
        )
