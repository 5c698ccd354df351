from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from itertools import chain, product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from adv_lightning.data import ShardedSampler

SIZES = (1, 2, 7, 8, 9, 237)


def order(number: int, *, epoch: int = 0, **options: int) -> list[int]:
    sampler = ShardedSampler(range(number), **options)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)
    indices = list(sampler)
    assert len(indices) == len(sampler)
    return indices


def test_is_a_distributed_sampler() -> None:
    assert isinstance(ShardedSampler(range(3)), DistributedSampler)


def test_one_process_reads_in_order() -> None:
    assert order(7) == order(7, pad=False) == list(range(7))


def test_shuffles_by_seed_and_epoch_only() -> None:
    first = order(50, shuffle=True, seed=3, epoch=5)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert order(50, shuffle=True, seed=3, epoch=5) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(first) == list(range(50))
    assert len({tuple(order(50, shuffle=True, seed=s, epoch=e)) for s in range(4) for e in range(4)}) == 16


def test_unpadded_parts_hold_each_index_once() -> None:
    for number, world, shuffle in product(SIZES, (2, 3), (False, True)):
        parts = [order(number, num_replicas=world, rank=r, shuffle=shuffle, pad=False) for r in range(world)]
        assert sorted(chain(*parts)) == list(range(number))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_padded_parts_repeat_the_start() -> None:
    for number, world in product(SIZES, (2, 3)):
        parts = [order(number, num_replicas=world, rank=r, shuffle=True) for r in range(world)]
        length = -(-number // world)
        assert {len(part) for part in parts} == {length}
        padding = (order(number, shuffle=True) * world)[: length * world - number]
        assert Counter(chain(*parts)) == Counter(range(number)) + Counter(padding)


def test_parts_interleave_to_the_order_of_one_process() -> None:
    whole = order(9, shuffle=True, seed=1)
    for rank in range(3):
        assert order(9, num_replicas=3, rank=rank, shuffle=True, seed=1) == whole[rank::3]


def test_refuses_a_rank_beyond_the_world() -> None:
    with pytest.raises(ValueError, match="Invalid rank 2"):
        ShardedSampler(range(9), num_replicas=2, rank=2)


def _write_part(rank: int, folder: str) -> None:
    store = dist.FileStore(os.path.join(folder, "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    Path(folder, str(rank)).write_text(" ".join(map(str, ShardedSampler(range(5), pad=False))))
    dist.barrier()  # neither may leave while the other still connects
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of threads
def test_asks_torch_distributed(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _write_part, (str(tmp_path),), nprocs=2, start_method="fork"
    )
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["0 2 4", "1 3"]
