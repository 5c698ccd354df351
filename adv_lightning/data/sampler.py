"""The order in which a data set is read, and each process's part of it."""

from collections.abc import Iterator, Sized
from itertools import cycle, islice

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler

from adv_lightning.data.seeding import mix_seed


class ShardedSampler(DistributedSampler[int]):
    """Indices in an order that is a pure function of (seed, epoch), divided among the processes in turn.

    It is a `DistributedSampler` because Lightning keeps only those under DDP. It replaces any other sampler, shuffles
    in training and pads in evaluation.

    Args:
        dataset: Anything with a length.
        num_replicas: Number of processes. None: from torch.distributed, or 1 if it is not running.
        rank: Rank of this process. None: from torch.distributed, or 0 if it is not running.
        shuffle: Use a new order each epoch, after `set_epoch`. Otherwise `order`.
        seed: Seed of the order, 0 or more.
        pad: Give all processes the same number of samples by repeating the start of the order, as training under DDP
            needs. At most num_replicas - 1 samples are repeated. Otherwise each index occurs exactly once over all
            processes, as exact evaluation needs, and the numbers may differ by one.
        order: Indices, int64 [N], in the order to use without `shuffle`. None: the order of the set.

    Raises:
        ValueError: rank is not in [0, num_replicas).
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        pad: bool = True,
        order: Tensor | None = None,
    ) -> None:
        running = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if running else 1
        if rank is None:
            rank = dist.get_rank() if running else 0
        super().__init__(dataset, num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.pad = pad
        self.order = None if order is None else order.tolist()
        if not pad:
            self.total_size = len(dataset)
            self.num_samples = len(range(rank, self.total_size, num_replicas))

    def __iter__(self) -> Iterator[int]:
        return self.after(0)

    def after(self, done: int) -> Iterator[int]:
        """Return this process's part of an epoch of which all processes together have read the first `done` indices."""
        number = len(self.dataset)  # type: ignore[arg-type]
        order: list[int] | range = range(number) if self.order is None else self.order
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(number, generator=generator).tolist()
        left = max(0, number - done)
        end = done + (-(-left // self.num_replicas) * self.num_replicas if self.pad else left)
        return islice(cycle(order), done + self.rank, end, self.num_replicas)
