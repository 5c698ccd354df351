from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adv_lightning.metrics.running_means import RunningMeans, TrainingMeans


def scalars(steps: int, start: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Multiples of 1/64, which any sum of keeps exactly."""
    return [torch.tensor((i * 37 % 64) / 64, dtype=dtype) for i in range(start, start + steps)]


def added(values: list[Tensor], means: RunningMeans | None = None) -> RunningMeans:
    means = means or RunningMeans()
    for value in values:
        means.add({"loss": value, "double": 2 * value, "none": None})
    return means


def mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).double().mean())


@pytest.mark.parametrize("steps", [1, 63, 64, 65, 128, 130])
def test_mean(steps: int) -> None:
    values = scalars(steps)
    means = added(values)
    assert len(means._pending.get("loss", [])) < 64  # memory does not grow with the epoch
    for _ in range(2):  # reading changes nothing
        found = means.named("train/{}")
        assert found.keys() == {"train/loss", "train/double"}
        assert found["train/loss"].item() == pytest.approx(mean(values), rel=1e-6)
        assert found["train/double"].item() == pytest.approx(2 * mean(values), rel=1e-6)


def test_no_steps() -> None:
    assert RunningMeans().named("{}") == {}
    means = RunningMeans()
    means.join(RunningMeans())
    assert means.named("{}") == {}


def test_sums_of_half_precision_are_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        means = added([torch.tensor(0.1, dtype=dtype)] * 1000).named("{}")
        assert means["loss"].dtype == torch.float32
        assert means["loss"].item() == pytest.approx(torch.tensor(0.1, dtype=dtype).item(), rel=1e-6)
    assert added(scalars(3, dtype=torch.float64)).named("{}")["loss"].dtype == torch.float64


def test_join() -> None:
    values = scalars(130)
    means = added(values[:70])
    means.join(added(values[70:]))
    assert means.named("{}")["loss"].item() == pytest.approx(mean(values), rel=1e-6)


@pytest.mark.parametrize("steps", [1, 63, 64, 100])
def test_restores_its_state(steps: int) -> None:
    # Values whose sum is rounded: the sums must be taken at the same steps.
    values = [value / 3 for value in scalars(130)]
    before = added(values[:steps])
    state = before.state_dict()
    assert {value.device.type for value in state.values()} == {"cpu"}
    after = RunningMeans.from_state(state, rank=0, processes=1)
    for means in (before, after):
        added(values[steps:], means)
    assert torch.equal(after.named("{}")["loss"], before.named("{}")["loss"])
    assert after.named("{}").keys() == {"loss", "double"}


def gathered(*parts: RunningMeans) -> dict[str, Tensor]:
    states = [part.state_dict() for part in parts]
    return {key: torch.stack([state[key] for state in states]) for key in states[0]}


def test_each_process_restores_its_own_part() -> None:
    parts = [added(scalars(70, start)) for start in (0, 5)]
    state = gathered(*parts)
    for rank, part in enumerate(parts):
        after = RunningMeans.from_state(state, rank, processes=2)
        assert torch.equal(after.named("{}")["loss"], part.named("{}")["loss"])


def test_another_number_of_processes_starts_anew() -> None:
    one, two = added(scalars(3)).state_dict(), gathered(added(scalars(3)), added(scalars(3)))
    for state, processes in ((one, 2), (two, 1), (two, 3)):
        means = RunningMeans.from_state(state, 0, processes)
        assert means.named("{}") == {}
        added(scalars(2), means)
        assert means.named("{}")["loss"].item() == pytest.approx(mean(scalars(2)))


# The losses of an epoch


def losses(values: list[Tensor], means: TrainingMeans, size: int = 8) -> None:
    for value in values:
        means.add({"loss": value, "adv_loss": None}, size)


def test_interval_and_epoch() -> None:
    values, means = scalars(10), TrainingMeans()
    for start, end in ((0, 4), (4, 7)):
        losses(values[start:end], means)
        assert means.take_interval() == {"train/loss": torch.tensor(mean(values[start:end]))}
    assert means.take_interval() == {}
    losses(values[7:], means)
    for _ in range(2):  # reading changes nothing
        assert means.of_epoch()["train/loss_epoch"].item() == pytest.approx(mean(values))
    means.start_epoch()
    losses(values[:1], means)
    assert means.of_epoch() == {"train/loss_epoch": values[0]}
    # Since the last log, which was in the last epoch.
    since = [*values[7:], values[0]]
    assert means.take_interval() == {"train/loss": torch.tensor(mean(since))}
    assert means.of_epoch() == {"train/loss_epoch": values[0]}
    assert means.take_interval() == {}


def test_an_interval_may_be_longer_than_epochs() -> None:
    values, means = scalars(6), TrainingMeans()
    for epoch in range(3):
        means.start_epoch()
        losses(values[2 * epoch : 2 * epoch + 2], means)
    assert means.take_interval()["train/loss"].item() == pytest.approx(mean(values))
    assert means.of_epoch()["train/loss_epoch"].item() == pytest.approx(mean(values[4:]))


@pytest.mark.parametrize("sizes", [(32, 8, 8), (8, 32, 8), (3, 5, 7)])
@pytest.mark.parametrize("log_after", [0, 1, 2, 3])
def test_a_batch_counts_by_its_size(sizes: tuple[int, ...], log_after: int) -> None:
    values, means = scalars(3), TrainingMeans()
    for step, (value, size) in enumerate(zip(values, sizes, strict=True)):
        if step == log_after:
            means.take_interval()
        losses([value], means, size)
    expected = sum(float(v) * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)
    assert means.of_epoch()["train/loss_epoch"].item() == pytest.approx(expected, rel=1e-6)
    since = slice(log_after % 3, None)
    expected = sum(float(v) * n for v, n in zip(values[since], sizes[since], strict=True)) / sum(sizes[since])
    assert means.take_interval()["train/loss"].item() == pytest.approx(expected, rel=1e-6)


def test_goes_on_from_a_state_that_does_not_count_examples() -> None:
    values = scalars(5)
    state = added(values[:3]).state_dict()
    old = {name: value for name, value in state.items() if name not in ("size", "examples")}
    means = RunningMeans.from_state(old, rank=0, processes=1)
    assert means.named("{}")["loss"].item() == pytest.approx(mean(values[:3]))
    for value in values[3:]:
        means.add({"loss": value}, 16)
    assert means.named("{}")["loss"].item() == pytest.approx(mean(values))


def test_a_new_epoch_keeps_the_parts_of_callbacks() -> None:
    means = TrainingMeans()
    means.parts["noise"] = added(scalars(3))
    means.start_epoch()
    assert means.parts["noise"].named("{}")["loss"].item() == pytest.approx(mean(scalars(3)))


def test_restores_every_part() -> None:
    values, before, after = scalars(9), TrainingMeans(), TrainingMeans()
    before.parts["noise"] = added(scalars(3))
    losses(values[:4], before)
    before.take_interval()
    losses(values[4:6], before)
    after.load_state_dict(before.state_dict(), rank=0, processes=1)
    for means in (before, after):
        losses(values[6:], means)
    assert after.parts.keys() == {"earlier", "interval", "epoch", "noise"}
    assert after.take_interval() == before.take_interval() == {"train/loss": torch.tensor(mean(values[4:]))}
    assert after.of_epoch() == before.of_epoch()
    assert after.of_epoch()["train/loss_epoch"].item() == pytest.approx(mean(values))
    assert after.parts["noise"].named("{}") == before.parts["noise"].named("{}")
    # A checkpoint without means, such as one of an older version, changes nothing.
    after.load_state_dict({}, rank=0, processes=1)
    assert after.parts.keys() == {"earlier", "interval", "epoch", "noise"}
