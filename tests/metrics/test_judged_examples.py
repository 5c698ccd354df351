"""The fingerprint tells other examples, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_lightning.metrics import JudgedExamples

X = torch.rand(12, 1, 20, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def of(x: Tensor, y: Tensor, size: int = 5) -> str:
    metric = JudgedExamples()
    for a, b in zip(x.split(size), y.split(size), strict=True):
        metric.update(a, b)
    return str(metric.compute())


def test_is_the_same_for_any_order_and_batches() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    nudged = X * (1 + 1e-8)
    assert of(X, Y) == of(X, Y, size=12) == of(X[order], Y[order], size=1) == of(X.double(), Y) == of(nudged, Y)


def test_two_processes_sum_theirs() -> None:
    whole, first, second = JudgedExamples(), JudgedExamples(), JudgedExamples()
    whole.update(X, Y)
    first.update(X[::2], Y[::2])
    second.update(X[1::2], Y[1::2])
    first.total, first.number = first.total + second.total, first.number + second.number
    assert first.compute() == whole.compute()


def test_differs_for_other_examples() -> None:
    labels, pixels, swapped = Y.clone(), X.clone(), Y.clone()
    labels[7] = 2 - labels[7] if labels[7] != 1 else 0
    pixels[7] = 1 - pixels[7]
    swapped[[0, 1]] = swapped[[1, 0]]
    others = [
        of(X, labels), of(pixels, Y), of(X, swapped), of(X[:-1], Y[:-1]), of(X[..., :19], Y), of(X.flip(-1), Y),
        of(torch.cat([X[:-1], X[:1]]), Y),
    ]  # fmt: skip
    assert len({of(X, Y), *others}) == len(others) + 1


def test_takes_any_inputs() -> None:
    for x in (torch.zeros(2), torch.zeros(2, 0), torch.ones(2, 3, dtype=torch.uint8), torch.ones(2, 3).half()):
        assert of(x, torch.tensor([0, 1])).startswith("2:")
    strange = torch.tensor([[float("nan"), float("inf")], [-float("inf"), 1e30]])
    assert of(strange, torch.tensor([0, 1])) != of(strange.nan_to_num(), torch.tensor([1, 0]))


def test_is_empty_without_examples() -> None:
    metric = JudgedExamples()
    metric.update(X[:0], Y[:0])
    assert metric.compute() == ""
