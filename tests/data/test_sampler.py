import os
from collections import Counter
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from adv_lightning.data import ShardedSampler


def order(number: int, *, epoch: int = 0, **options: int) -> list[int]:
    sampler = ShardedSampler(range(number), **options)  # type: ignore[arg-type]
    sampler.set_epoch(epoch)
    indices = list(sampler)
    assert len(indices) == len(sampler)
    return indices


def test_lightning_takes_it_for_a_distributed_sampler() -> None:
    assert isinstance(ShardedSampler(range(3)), DistributedSampler)


def test_alone_it_gives_every_index_in_order() -> None:
    assert order(7) == list(range(7))
    assert order(7, pad=False) == list(range(7))


def test_the_order_is_a_function_of_seed_and_epoch_only() -> None:
    first = order(50, shuffle=True, seed=3, epoch=5)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert order(50, shuffle=True, seed=3, epoch=5) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(first) == list(range(50))


def test_no_two_seeds_and_epochs_share_an_order() -> None:
    orders = {tuple(order(50, shuffle=True, seed=s, epoch=e)) for s in range(4) for e in range(4)}
    assert len(orders) == 16


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 237])
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_unpadded_shards_hold_each_index_exactly_once(number: int, world: int, shuffle: bool) -> None:
    shards = [order(number, num_replicas=world, rank=r, shuffle=shuffle, pad=False) for r in range(world)]
    assert sorted(chain(*shards)) == list(range(number))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 237])
@pytest.mark.parametrize("world", [2, 3])
def test_padded_shards_are_equally_long_and_repeat_only_the_start(number: int, world: int) -> None:
    shards = [order(number, num_replicas=world, rank=r, shuffle=True) for r in range(world)]
    counts = Counter(chain(*shards))
    length = -(-number // world)
    assert {len(shard) for shard in shards} == {length}
    assert set(counts) == set(range(number))
    start = order(number, shuffle=True)
    padding = (start * world)[: length * world - number]
    assert counts - Counter(range(number)) == Counter(padding)


def test_the_shards_interleave_to_the_order_of_one_process() -> None:
    whole = order(9, shuffle=True, seed=1)
    assert [order(9, num_replicas=3, rank=r, shuffle=True, seed=1) for r in range(3)] == [
        whole[0::3],
        whole[1::3],
        whole[2::3],
    ]


def test_a_rank_beyond_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid rank 2"):
        ShardedSampler(range(9), num_replicas=2, rank=2)


def _shard_of_this_process(rank: int, folder: str) -> None:
    store = dist.FileStore(os.path.join(folder, "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    Path(folder, str(rank)).write_text(" ".join(map(str, ShardedSampler(range(5), pad=False))))
    dist.barrier()  # neither may leave while the other still connects
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of threads
def test_rank_and_world_come_from_torch_distributed(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _shard_of_this_process, (str(tmp_path),), nprocs=2, start_method="fork"
    )
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["0 2 4", "1 3"]
