from __future__ import annotations

import pytest
import torch

from adv_lightning.metrics import RubbishRate


def test_counts_inputs_above_the_threshold() -> None:
    rate = RubbishRate(3, threshold=0.5)
    rate.update(torch.tensor([[0.6, 0.2, 0.2], [0.4, 0.3, 0.3]]))
    rate.update(torch.tensor([[0.1, 0.1, 0.8], [0.7, 0.9, 0.1], [0.5, 0.5, 0.0]]))
    assert rate.compute().item() == pytest.approx(3 / 5)
    assert rate.confidence().item() == pytest.approx((0.6 + 0.8 + 0.9) / 3, abs=1e-6)
    assert rate.classes().tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_without_an_error() -> None:
    rate = RubbishRate(2)
    rate.update(torch.tensor([[0.5, 0.5]]))
    assert rate.compute().item() == 0
    assert rate.confidence().isnan()
    assert rate.classes().isnan().all()


def test_batches_do_not_matter() -> None:
    probabilities = torch.rand(101, 10, generator=torch.Generator().manual_seed(0))
    whole, parts = RubbishRate(10, threshold=0.9), RubbishRate(10, threshold=0.9)
    whole.update(probabilities)
    for part in probabilities.split(7):
        parts.update(part)
    confident = probabilities.amax(1) > 0.9
    assert whole.compute() == parts.compute() == confident.float().mean()
    assert torch.equal(whole.confidence(), parts.confidence())
    counts = probabilities[confident].argmax(1).bincount(minlength=10)
    assert torch.equal(parts.taken, counts)
