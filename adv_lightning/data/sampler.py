"""The order in which a set is read, and the part of it that a process reads."""

from collections.abc import Iterator, Sized
from itertools import cycle, islice

import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from adv_lightning.data.seeding import mix_seed

__all__ = ["ShardedSampler"]


class ShardedSampler(DistributedSampler[int]):
    """Indices in an order that is a pure function of (seed, epoch), shared out over the processes.

    It is a ``DistributedSampler`` because Lightning leaves only those alone under DDP: it replaces any other
    one, forces a shuffle in training and pads in evaluation.

    Args:
        dataset: Anything with a length.
        num_replicas: Number of processes. None: that of torch.distributed, or 1 where it does not run.
        rank: Number of this process. None: as for num_replicas.
        shuffle: A new order each epoch, after ``set_epoch``. Otherwise the order of the set.
        seed: 0 or more.
        pad: Give every process the same number of samples by starting over at the beginning of the order, as
            training under DDP needs (at most num_replicas - 1 samples come twice). Otherwise each index comes
            exactly once over all processes, as honest evaluation needs, and lengths may differ by one.

    Raises:
        ValueError: The rank is not in [0, num_replicas).
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        pad: bool = True,
    ) -> None:
        running = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if running else 1
        if rank is None:
            rank = dist.get_rank() if running else 0
        super().__init__(dataset, num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.pad = pad
        if not pad:
            self.total_size = len(dataset)
            self.num_samples = len(range(rank, self.total_size, num_replicas))

    def __iter__(self) -> Iterator[int]:
        number = len(self.dataset)  # type: ignore[arg-type]
        order: list[int] | range = range(number)
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(number, generator=generator).tolist()
        return islice(cycle(order), self.rank, self.total_size, self.num_replicas)
