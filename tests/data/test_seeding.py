from __future__ import annotations

from itertools import product

import pytest
import torch
from lightning.pytorch import seed_everything

from adv_lightning.data.seeding import BatchSeeding, mix_seed, process_seed

CPU = torch.device("cpu")


def draw(epoch: int = 0, batch: int = 0, rank: int = 0, seeding: BatchSeeding | None = None) -> float:
    """The first number drawn in a batch of one of four processes."""
    (seeding or BatchSeeding()).seed(epoch, batch, rank, 4, CPU)
    return torch.rand(()).item()


def test_process_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_seed() is None
    monkeypatch.setenv("PL_SEED_WORKERS", "0")  # so that both are removed again
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    seed_everything(5, verbose=False)
    assert process_seed() == 5


def test_mixed_seeds_differ() -> None:
    seeds = {mix_seed(*parts) for parts in product(range(5), repeat=3)}
    assert len(seeds) == 125
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert mix_seed(1, 2) == mix_seed(1, 2, 0) == mix_seed(1, 2)
    with pytest.raises(ValueError, match="non-negative"):
        mix_seed(-1)


def test_draws_follow_seed_epoch_rank_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [dict(zip(("epoch", "batch", "rank"), place, strict=True)) for place in product(range(3), repeat=3)]
    found = []
    for seed in ("0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        draws = [draw(**place) for place in places]
        torch.manual_seed(7)  # earlier draws and an earlier start do not matter
        seeding = BatchSeeding()
        assert [draw(**place, seeding=seeding) for place in reversed(places)] == draws[::-1]
        found += draws
    assert len(set(found)) == 54


def test_seeds_the_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    seeds: list[int] = []
    module = type("Device", (), {"manual_seed": staticmethod(seeds.append)})
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    BatchSeeding().seed(1, 2, 3, 4, torch.device("cuda"))
    assert seeds == [torch.initial_seed()]


def test_without_a_seed_tells_processes_apart_once() -> None:
    for rank, processes, offset in ((0, 1, 0), (1, 2, 1_000_003), (0, 2, 0), (3, 4, 3_000_009)):
        torch.manual_seed(11)
        seeding = BatchSeeding()
        seeding.seed(0, 0, rank, processes, CPU)
        drawn = torch.rand(2)
        torch.manual_seed(11 + offset)
        assert torch.equal(drawn, torch.rand(2))
        state = torch.get_rng_state()
        seeding.seed(0, 1, rank, processes, CPU)
        seeding.seed(1, 0, rank, processes, CPU)
        assert torch.equal(torch.get_rng_state(), state)


def said(caplog: pytest.LogCaptureFixture, seeding: BatchSeeding | None = None) -> int:
    caplog.clear()
    (seeding or BatchSeeding()).restart()
    return sum("torch.manual_seed" in record.getMessage() for record in caplog.records)


def test_says_that_a_later_manual_seed_changes_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    with caplog.at_level("INFO"):
        torch.manual_seed(5)
        assert said(caplog) == 0  # no seed_everything
        monkeypatch.setenv("PL_GLOBAL_SEED", "3")  # so that it is put back
        seed_everything(3, verbose=False)
        assert said(caplog) == 0
        seeding = BatchSeeding()
        seeding.seed(0, 0, 0, 1, torch.device("cpu"))
        assert said(caplog) == said(caplog, seeding) == 0  # a second training
        torch.manual_seed(6)
        assert said(caplog) == 1
        assert "seed_everything(3)" in caplog.text
        assert "torch.manual_seed(6)" in caplog.text
