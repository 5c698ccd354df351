from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning.data import BatchLoader, DigitsDataModule, ShardedSampler, TensorImages
from tests.data.recorder import Recorder
from tests.support.helpers import quiet_trainer


class Counted(TensorImages):
    """Ten images that know which indices were read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), **options)
        self.read: list[int] = []

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        self.read += indices
        return super().__getitems__(indices)


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + torch.rand(x.shape, generator=generator)


def make(data: TensorImages, *, epoch: int = 0, **options: Any) -> BatchLoader:
    sampler = ShardedSampler(data, shuffle=True, **{"seed": 1, **options})
    sampler.set_epoch(epoch)
    return BatchLoader(data, batch_size=4, sampler=sampler, generator=data.generator)


def labels(loader: BatchLoader) -> list[list[int]]:
    return [y.tolist() for _, y in loader]


def test_gives_what_a_plain_loader_gives() -> None:
    data = Counted()
    ours = list(BatchLoader(data, batch_size=4, sampler=ShardedSampler(data)))
    plain = list(DataLoader(TensorDataset(data.images / 255, data.labels), batch_size=4))
    assert len(ours) == len(plain) == len(BatchLoader(data, batch_size=4)) == 3
    for (x, y), (expected_x, expected_y) in zip(ours, plain, strict=True):
        assert torch.equal(x, expected_x)
        assert torch.equal(y, expected_y)


def test_drop_last_and_collate_fn() -> None:
    loader = BatchLoader(Counted(), batch_size=4, drop_last=True, collate_fn=lambda batch: batch[1].sum())
    assert [int(total) for total in loader] == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7]


def test_keeps_the_global_random_state() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(make(Counted(transform=noise)))
    assert torch.equal(torch.get_rng_state(), state)


def test_epoch_may_be_set_after_iter() -> None:  # as Lightning does
    loader = make(Counted())
    iterator = iter(loader)
    loader.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert [y.tolist() for _, y in iterator] == labels(make(Counted(), epoch=3))


def test_resumes_without_reading_used_batches() -> None:
    whole = [(x.clone(), y) for x, y in make(Counted(transform=noise), epoch=2)]
    first = make(Counted(transform=noise), epoch=2)
    iterator = iter(first)
    assert first.state_dict()["batches"] == 0
    next(iterator)
    next(iterator)
    state = first.state_dict()
    assert state == {"epoch": 2, "batches": 2}

    data = Counted(transform=noise)
    second = make(data, epoch=2)
    second.load_state_dict(state)
    assert second.state_dict() == state
    rest = list(second)
    assert len(rest) == 1
    assert data.read == whole[2][1].tolist()
    assert torch.equal(rest[0][0], whole[2][0])
    assert second.state_dict() == {"epoch": 2, "batches": 3}
    assert labels(second) == [y.tolist() for _, y in whole]  # only the first iteration is cut short


def test_a_state_of_another_epoch_skips_nothing() -> None:
    loader = make(Counted(), epoch=3)
    loader.load_state_dict({"epoch": 2, "batches": 2})
    assert labels(loader) == labels(make(Counted(), epoch=3))


def test_draws_follow_seed_epoch_rank_and_batch() -> None:
    def draws(**options: Any) -> list[tuple[float, ...]]:
        data = Counted(transform=noise)
        loader = make(data, **options)
        return [tuple((x - y.view(-1, 1, 1, 1) / 255).flatten().tolist()) for x, y in loader]

    again = draws()
    assert again == draws()
    two = {"num_replicas": 2}
    variants = [again, draws(epoch=1), draws(seed=2), draws(**two, rank=0), draws(**two, rank=1)]
    # Rank 0 of two draws what one process does, for the smaller of the two batches.
    firsts = [batches[0][0] for batches in variants]
    assert firsts[0] == pytest.approx(firsts[3])
    assert len({round(first, 4) for first in firsts}) == 4
    assert len({round(batch[0], 4) for batch in again}) == 3


def test_refuses_bad_arguments() -> None:
    for options, got in (({"num_workers": 1}, "num_workers=1"), ({"batch_size": None}, "batch_size=None")):
        with pytest.raises(ValueError, match=got):
            BatchLoader(Counted(), **options)
    with pytest.raises(TypeError, match=r"__getitems__.*TensorDataset"):
        BatchLoader(TensorDataset(torch.zeros(3)))


# Under Lightning


class Noisy(DigitsDataModule):
    train_transform = staticmethod(noise)


SAVES: dict[str, dict[str, Any]] = {
    "steps": {"every_n_train_steps": 1},
    "epochs": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    # The mode, unused without a monitor, tells its state from that of "epochs".
    "validations": {"every_n_epochs": 1, "save_on_train_epoch_end": False, "mode": "max"},
}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the resumed run saves nothing
@pytest.mark.parametrize(("limit", "per_epoch"), [(5, 5), (1.0, 6)])
def test_resumed_fit_sees_the_remaining_batches(limit: float, per_epoch: int, tmp_path: Path) -> None:
    def fit(**options: Any) -> list[tuple[int, int, Tensor, Tensor]]:
        module, savers = Recorder(), options.pop("callbacks", [])
        trainer = quiet_trainer(
            max_epochs=3, limit_train_batches=limit, enable_checkpointing=bool(savers), callbacks=savers
        )
        trainer.fit(module, datamodule=Noisy(batch_size=200, seed=7), **options)
        return module.seen

    whole = fit(callbacks=[ModelCheckpoint(tmp_path / name, "{step}", save_top_k=-1, **s) for name, s in SAVES.items()])
    assert len(whole) == 3 * per_epoch
    places = [*product(["steps"], (3, 5, 6, 8, 10)), *product(["epochs", "validations"], (per_epoch, 2 * per_epoch))]
    for name, step in places:
        seen = fit(ckpt_path=str(tmp_path / name / f"step={step}.ckpt"), weights_only=True)
        assert [entry[:2] for entry in seen] == [entry[:2] for entry in whole[step:]], (name, step)
        for (_, _, x, y), (_, _, expected_x, expected_y) in zip(seen, whole[step:], strict=True):
            assert torch.equal(y, expected_y)
            assert torch.equal(x, expected_x)


def test_overfit_batches_repeats_the_batches() -> None:
    module = Recorder()
    trainer = quiet_trainer(max_epochs=3, overfit_batches=2)
    with pytest.warns(UserWarning, match="You requested to overfit"):
        trainer.fit(module, datamodule=DigitsDataModule(batch_size=50))
    assert isinstance(trainer.train_dataloader, BatchLoader)
    assert [entry[:2] for entry in module.seen] == [(epoch, batch) for epoch in range(3) for batch in range(2)]
    for epoch in range(1, 3):
        for batch in range(2):
            assert torch.equal(module.seen[2 * epoch + batch][2], module.seen[batch][2])
