from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import AdversarialModule
from adv_lightning.data import BatchLoader, DigitsDataModule, ShardedSampler, TensorImages
from tests.data.recorder import Recorder
from tests.support.helpers import quiet_trainer
from tests.support.interrupted import At


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
    assert (state["epoch"], state["batches"], state["images"]) == (2, 2, 8)

    data = Counted(transform=noise)
    second = make(data, epoch=2)
    second.load_state_dict(state)
    assert second.state_dict() == state
    rest = list(second)
    assert len(rest) == 1
    assert data.read == whole[2][1].tolist()
    assert torch.equal(rest[0][0], whole[2][0])
    assert second.state_dict() == {**state, "batches": 3, "images": 10}
    assert labels(second) == [y.tolist() for _, y in whole]  # only the first iteration is cut short


def test_a_state_of_before_counts_batches() -> None:
    loader = make(Counted(), epoch=2)
    loader.load_state_dict({"epoch": 2, "batches": 2})
    assert labels(loader) == labels(make(Counted(), epoch=2))[2:]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_another_batch_size_or_number_of_processes_goes_on_with_the_rest(size: int, processes: int) -> None:
    first = make(Counted(), epoch=2)
    iterator = iter(first)
    used = next(iterator)[1].tolist()
    state = first.state_dict()

    def rest(rank: int) -> list[list[int]]:
        data = Counted()
        sampler = ShardedSampler(data, processes, rank, shuffle=True, seed=1)
        sampler.set_epoch(2)
        loader = BatchLoader(data, batch_size=size, sampler=sampler)
        loader.load_state_dict(state)
        return labels(loader)

    parts = [rest(rank) for rank in range(processes)]
    assert len({tuple(map(len, part)) for part in parts}) == 1
    found = [label for part in parts for batch in part for label in batch]
    assert set(found) == set(range(10)) - set(used) | set(found[6:])  # padding repeats images of this epoch
    assert len(found) == -(-6 // processes) * processes
    assert {*used, *found} == set(range(10))


def test_drop_last_keeps_whole_batches() -> None:
    first = make(Counted())
    next(iter(first))
    sampler = ShardedSampler(Counted(), shuffle=True, seed=1)
    loader = BatchLoader(Counted(), batch_size=5, sampler=sampler, drop_last=True)
    loader.load_state_dict(first.state_dict())
    assert list(map(len, labels(loader))) == [3, 3]  # two batches are left of two


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


SET = {"batch_size": 160, "val_size": 97, "seed": 7}
"""Of digits: 1340 images to train on, in nine batches."""


def in_two_parts(tmp_path: Path, step: int, changed: dict[str, Any], **options: Any) -> tuple[list[Tensor], Recorder]:
    """Train an epoch up to a step, and go on with changed data; return the first part's images, and the second's."""
    path, first = tmp_path / "half.ckpt", Recorder()

    def save(trainer: Trainer) -> None:
        if not path.exists():
            first.seen_before = [x for *_, x, _ in first.seen]
            trainer.save_checkpoint(path)

    trainer = quiet_trainer(**{**options, "max_epochs": 1}, callbacks=[At(step, save)])
    trainer.fit(first, datamodule=DigitsDataModule(**SET))
    second = Recorder()
    trainer = quiet_trainer(**options)
    trainer.fit(second, datamodule=DigitsDataModule(**{**SET, **changed}), ckpt_path=path, weights_only=True)
    assert trainer.is_last_batch
    return first.seen_before, second


@pytest.mark.parametrize("size", [40, 64, 160, 300, 1000, 5000])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 0.5}], ids=str)
def test_another_batch_size_in_mid_epoch_sees_each_image_once(
    size: int, options: dict[str, Any], tmp_path: Path
) -> None:
    before, rest = in_two_parts(tmp_path, 2, {"batch_size": size}, **options)
    data = DigitsDataModule(**SET)
    data.setup("fit")
    assert data.train_set is not None
    every = (data.train_set.images.flatten(1) / data.train_set.scale).tolist()
    seen = torch.cat([*before, *(x for *_, x, _ in rest.seen)]).flatten(1).tolist()
    assert sorted(seen) == sorted(every)
    assert max(len(x) for *_, x, _ in rest.seen) <= size
    assert sum(map(len, rest.judged)) in (97, 2 * 97)  # the epoch came to its end, and was validated
    accumulated = options.get("accumulate_grad_batches", 1)
    assert rest.seen[0][1] % accumulated == 0 or size > 1340  # a step is made of whole batches
    assert rest.seen[-1][1] + 1 == -(-1340 // size)


def test_the_next_epoch_after_another_batch_size_is_whole(tmp_path: Path) -> None:
    for step, left in ((3, 1340 - 480), (9, 0)):  # in the middle, and at the end
        (tmp_path / str(step)).mkdir()
        _, rest = in_two_parts(tmp_path / str(step), step, {"batch_size": 64}, max_epochs=2)
        read = [sum(len(y) for epoch, *_, y in rest.seen if epoch == each) for each in (0, 1)]
        assert read == [left, 1340]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_loader_of_the_users_own(tmp_path: Path) -> None:
    def loader(size: int) -> BatchLoader:
        data = DigitsDataModule(**SET)
        data.setup("fit")
        own = data.train_dataloader()
        return BatchLoader(own.dataset, batch_size=size, sampler=own.sampler)

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    half = At(3, lambda trainer: trainer.save_checkpoint(tmp_path / "half.ckpt"))
    quiet_trainer(callbacks=[half], limit_val_batches=0).fit(AdversarialModule(net), loader(160))
    trainer = quiet_trainer(limit_val_batches=0)
    trainer.fit(AdversarialModule(net), loader(64), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert trainer.is_last_batch
    assert trainer.global_step == 3 + -(-(1340 - 480) // 64)


@pytest.mark.parametrize(("changed", "named"), [({"val_size": 200}, "1340 .*1237"), ({"seed": 8}, "seed 7.*seed 8")])
def test_another_order_in_mid_epoch_is_refused(changed: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        in_two_parts(tmp_path, 3, changed)
    (tmp_path / "half.ckpt").unlink()
    in_two_parts(tmp_path, 9, changed, max_epochs=2)  # at the end of an epoch nothing is unknown


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
