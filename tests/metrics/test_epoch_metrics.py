from __future__ import annotations

import pytest
import torch

from adv_lightning.metrics.epoch_metrics import EpochMetrics

Y = torch.tensor([0, 1, 2, 0])


def values(metrics: EpochMetrics) -> dict[str, float]:
    return {name: metric.compute().item() for name, metric in metrics.measured().items()}


def test_clean_epoch() -> None:
    metrics = EpochMetrics()
    metrics.reset()
    metrics.add(torch.tensor([0, 1, 1, 1]), Y, torch.tensor(2.0))
    metrics.add(torch.tensor([0]), Y[:1], torch.tensor(7.0))
    # The mean is over examples: the batches have 4 and 1.
    assert values(metrics) == pytest.approx({"loss": (4 * 2 + 7) / 5, "error": 2 / 5})


def test_attacked_epoch() -> None:
    metrics = EpochMetrics()
    metrics.reset()
    metrics.add(Y, Y, torch.tensor(1.0))
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [0.75, 0.25, 0.0]])
    metrics.add_attacked(Y, probabilities, Y)
    assert values(metrics) == {"loss": 1, "error": 0, "adv_error": 0}  # confidence needs a mistake
    metrics.add_attacked(torch.tensor([0, 2, 1, 0]), probabilities, Y)
    expected = {"loss": 1, "error": 0, "adv_error": 2 / 8, "adv_confidence": (0.8 + 0.5) / 2}
    assert values(metrics) == pytest.approx(expected)


def test_a_batch_beyond_the_limit_of_attacked_examples() -> None:
    metrics = EpochMetrics()
    metrics.reset()
    metrics.add(Y, Y, torch.tensor(1.0))
    metrics.add_attacked(Y[:0], torch.empty(0, 3), Y[:0])
    assert metrics.measured().keys() == {"loss", "error", "adv_error"}
    assert metrics.adv_error.compute().isnan()


def test_reset() -> None:
    metrics = EpochMetrics()
    for _ in range(2):
        metrics.reset()
        metrics.add(torch.tensor([1, 1, 1, 1]), Y, torch.tensor(3.0))
        metrics.add_attacked(1 - Y.clamp(max=1), torch.full((4, 3), 1 / 3), Y)
        assert values(metrics) == pytest.approx({"loss": 3, "error": 3 / 4, "adv_error": 1, "adv_confidence": 1 / 3})
    metrics.reset()
    metrics.add(Y, Y, torch.tensor(0.0))
    assert values(metrics) == {"loss": 0, "error": 0}


def test_a_nan_loss_shows() -> None:
    metrics = EpochMetrics()
    metrics.reset()
    metrics.add(Y, Y, torch.tensor(1.0))
    metrics.add(Y, Y, torch.tensor(torch.nan))
    assert metrics.loss.compute().isnan()


def test_a_half_precision_module_sums_in_float32() -> None:
    metrics = EpochMetrics().to(torch.bfloat16)
    metrics.reset()
    for _ in range(500):
        metrics.add(Y, Y, torch.tensor(0.5, dtype=torch.bfloat16))
    assert metrics.loss.compute().dtype == torch.float32
    assert metrics.loss.compute() == 0.5
