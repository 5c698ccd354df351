from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from adv_lightning.metrics import ErrorRate, MistakeConfidence


def draw(n: int = 101, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, predicted classes and targets; about a third of the predictions are right."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(n, classes, generator=generator)).softmax(1)
    y = torch.randint(classes, (n,), generator=generator)
    return probabilities, torch.where(torch.rand(n, generator=generator) < 0.2, y, probabilities.argmax(1)), y


def by_numpy(probabilities: Tensor, predicted: Tensor, y: Tensor) -> tuple[float, float]:
    p, k, t = probabilities.double().numpy(), predicted.numpy(), y.numpy()
    return float(np.mean(k != t)), float(np.mean(p.max(1)[k != t]))


def test_equal_numpy_in_any_batches() -> None:
    data = draw()
    expected_error, expected_confidence = by_numpy(*data)
    assert 0.3 < expected_error < 0.9
    for sizes in ([101], [1] * 101, [50, 0, 51], [0, 7, 94, 0], [100, 1]):
        error, confidence = ErrorRate(), MistakeConfidence()
        for probabilities, predicted, y in zip(*(part.split(sizes) for part in data), strict=True):
            error.update(predicted, y)
            confidence.update(probabilities, predicted, y)
        assert error.compute().item() == np.float32(expected_error)
        assert confidence.compute().item() == pytest.approx(expected_confidence, abs=2**-23)


def test_order_does_not_matter() -> None:
    data = draw(1000)
    values = set()
    for seed in range(5):
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
        confidence = MistakeConfidence()
        for probabilities, predicted, y in zip(*(part[order].split(seed + 3) for part in data), strict=True):
            confidence.update(probabilities, predicted, y)
        values.add(confidence.compute().item())
    assert len(values) == 1


def test_large_sums_are_exact() -> None:
    # In float32, counts stop at 2 ** 24 and sums round long before.
    confidence, n = MistakeConfidence(), 100_000
    probabilities, wrong = torch.tensor([[0.75, 0.25]]).repeat(n, 1), torch.zeros(n, dtype=torch.int64)
    for _ in range(200):
        confidence.update(probabilities, wrong, wrong + 1)
    assert confidence.mistakes == 200 * n
    assert confidence.compute() == 0.75


def test_any_precision() -> None:
    probabilities, predicted, y = draw()
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        confidence = MistakeConfidence()
        confidence.update(probabilities.to(dtype), predicted, y)
        _, expected = by_numpy(probabilities.to(dtype), predicted, y)
        assert confidence.compute().item() == pytest.approx(expected, abs=2**-22)


def test_confidence_is_the_largest_probability() -> None:
    confidence = MistakeConfidence()  # whatever was predicted
    confidence.update(torch.tensor([[0.2, 0.8], [0.9, 0.1]]), torch.tensor([0, 0]), torch.tensor([1, 0]))
    assert confidence.compute().item() == pytest.approx(0.8)


def test_without_a_mistake() -> None:
    error, confidence = ErrorRate(), MistakeConfidence()
    y = torch.tensor([0, 1])
    error.update(y, y)
    confidence.update(torch.eye(2), y, y)
    assert error.compute() == 0
    assert math.isnan(confidence.compute())


def test_without_examples() -> None:
    error, confidence, none = ErrorRate(), MistakeConfidence(), torch.empty(0, dtype=torch.int64)
    error.update(none, none)
    confidence.update(torch.empty(0, 3), none, none)
    assert math.isnan(error.compute())
    assert math.isnan(confidence.compute())


def test_reset_and_forward() -> None:
    data = draw()
    error, confidence = ErrorRate(), MistakeConfidence()
    error.update(*data[1:])
    error.reset()
    assert error.total == 0
    expected_error, expected_confidence = by_numpy(*data)
    assert error(*data[1:]).item() == np.float32(expected_error)
    assert confidence(*data).item() == pytest.approx(expected_confidence, abs=2**-23)
    again = pickle.loads(pickle.dumps(error))
    assert again.compute() == error.compute()


def test_states_of_two_processes_add_up() -> None:
    data = draw()
    whole, parts = MistakeConfidence(), [MistakeConfidence(), MistakeConfidence()]
    whole.update(*data)
    for i, part in enumerate(parts):
        part.update(*(tensor[i::2] for tensor in data))
    for name, reduce in whole._reductions.items():
        both = reduce(torch.stack([getattr(part, name) for part in parts]))
        assert torch.equal(both, getattr(whole, name))
