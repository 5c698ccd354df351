from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning.data import BatchLoader, DigitsDataModule, ShardedSampler, TensorImages


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


def test_it_gives_what_a_plain_loader_gives() -> None:
    data = Counted()
    ours = list(BatchLoader(data, batch_size=4, sampler=ShardedSampler(data)))
    plain = list(DataLoader(TensorDataset(data.images / 255, data.labels), batch_size=4))
    assert len(ours) == len(plain) == len(BatchLoader(data, batch_size=4)) == 3
    for (x, y), (expected_x, expected_y) in zip(ours, plain, strict=True):
        assert torch.equal(x, expected_x)
        assert torch.equal(y, expected_y)


def test_drop_last_and_collate_fn_mean_what_they_mean_in_torch() -> None:
    loader = BatchLoader(Counted(), batch_size=4, drop_last=True, collate_fn=lambda batch: batch[1].sum())
    assert [int(total) for total in loader] == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7]


def test_the_global_random_state_is_untouched() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(make(Counted(transform=noise)))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_epoch_may_be_set_after_iter_as_lightning_does() -> None:
    loader = make(Counted())
    iterator = iter(loader)
    loader.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert [y.tolist() for _, y in iterator] == labels(make(Counted(), epoch=3))


def test_resume_gives_the_rest_of_the_epoch_without_reading_the_used_batches() -> None:
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


def test_draws_are_a_function_of_seed_epoch_rank_and_batch() -> None:
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


@pytest.mark.parametrize(
    ("options", "got"), [({"num_workers": 1}, "num_workers=1"), ({"batch_size": None}, "batch_size=None")]
)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], got: str) -> None:
    with pytest.raises(ValueError, match=got):
        BatchLoader(Counted(), **options)


def test_a_set_without_batches_is_refused() -> None:
    with pytest.raises(TypeError, match="TensorDataset has none"):
        BatchLoader(TensorDataset(torch.zeros(3)))


class Noisy(DigitsDataModule):
    train_transform = staticmethod(noise)


class Stop(Exception):
    """Stands for a crash."""


STEPS = {"every_n_train_steps": 1}
EPOCHS = {"every_n_epochs": 1, "save_on_train_epoch_end": True}
VALIDATIONS = {"every_n_epochs": 1, "save_on_train_epoch_end": False}


# Six batches an epoch, or five where limited. Steps 5 and 10, or 6 and 12, end an epoch.
@pytest.mark.parametrize(
    ("limit", "crash", "when"),
    [
        *((limit, crash, STEPS) for limit in (5, 1.0) for crash in (3, 5, 6, 8, 10)),
        *((5, crash, when) for crash in (5, 10) for when in (EPOCHS, VALIDATIONS)),
        *((1.0, crash, when) for crash in (6, 12) for when in (EPOCHS, VALIDATIONS)),
    ],
)
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty:UserWarning")
def test_a_resumed_fit_sees_the_batches_of_an_uninterrupted_one(
    limit: float,
    crash: int,
    when: dict[str, Any],
    recorder: Any,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:
    def fit(module: Any, name: str, **options: Any) -> None:
        saver = ModelCheckpoint(tmp_path / name, "{step}", save_top_k=-1, **when)
        trainer = make_trainer(max_epochs=3, limit_train_batches=limit, enable_checkpointing=True, callbacks=[saver])
        trainer.fit(module, datamodule=Noisy(batch_size=200, seed=7), **options)

    class Crashing(recorder):  # type: ignore[misc]
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if self.global_step == crash:
                raise Stop

    whole, before, after = recorder(64, 10), Crashing(64, 10), recorder(64, 10)
    fit(whole, "whole")
    with pytest.raises(Stop):
        fit(before, "before")
    fit(after, "before", ckpt_path=str(tmp_path / "before" / f"step={crash}.ckpt"), weights_only=True)
    seen = before.seen + after.seen
    assert [entry[:2] for entry in seen] == [entry[:2] for entry in whole.seen]
    for (_, _, x, y), (_, _, expected_x, expected_y) in zip(seen, whole.seen, strict=True):
        assert torch.equal(y, expected_y)
        assert torch.equal(x, expected_x)


def test_overfit_batches_gives_the_same_batches_each_epoch(recorder: Any, make_trainer: Callable[..., Trainer]) -> None:
    module = recorder(64, 10)
    trainer = make_trainer(max_epochs=3, overfit_batches=2)
    with pytest.warns(UserWarning, match="You requested to overfit"):
        trainer.fit(module, datamodule=DigitsDataModule(batch_size=50))
    assert isinstance(trainer.train_dataloader, BatchLoader)
    assert [entry[:2] for entry in module.seen] == [(epoch, batch) for epoch in range(3) for batch in range(2)]
    for epoch in range(1, 3):
        for batch in range(2):
            assert torch.equal(module.seen[2 * epoch + batch][2], module.seen[batch][2])
