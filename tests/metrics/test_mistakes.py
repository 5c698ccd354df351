"""Metrics of mistakes and of agreement, against NumPy and plain Python under random batching."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adv_lightning.losses import LogisticLoss, SigmoidLoss
from adv_lightning.metrics import (
    Agreement,
    ConfidenceHistogram,
    MistakeClasses,
    MistakeConfidence,
    WrongClassProbability,
)
from tests.metrics.test_error_rate import draw


def random_batches(*data: Tensor, seed: int) -> list[tuple[Tensor, ...]]:
    """The examples in another order, in batches of random sizes, some of them empty."""
    rng, n = np.random.default_rng(seed), len(data[0])
    cuts = np.sort(rng.integers(0, n + 1, 8))
    sizes = np.diff([0, *cuts, n]).tolist()
    order = torch.from_numpy(rng.permutation(n))
    return list(zip(*(part[order].split(sizes) for part in data), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_wrong_class_probability_of_a_softmax(seed: int) -> None:
    data = draw(seed=seed)
    metric = WrongClassProbability()
    for batch in random_batches(*data, seed=seed):
        metric.update(*batch)
    p, k, t = (part.numpy() for part in data)
    expected = np.mean([1 - p[i, t[i]].astype(np.float64) for i in range(len(t)) if k[i] != t[i]])
    assert 0.5 < expected < 1
    assert metric.compute().item() == pytest.approx(expected, abs=2**-21)


def test_wrong_class_probability_of_sigmoids() -> None:
    probabilities = SigmoidLoss().probabilities(torch.tensor([[2.0, 3.0, -1.0], [1.0, 5.0, 4.0], [9.0, -9.0, 8.0]]))
    metric = WrongClassProbability()
    metric.update(probabilities, torch.tensor([1, 1, 0]), torch.tensor([0, 2, 0]))
    p = 1 / (1 + np.exp(-np.array([[3.0, -1.0], [1.0, 5.0]])))
    assert p.sum(axis=1).max() > 1
    assert metric.compute().item() == pytest.approx(p.sum(axis=1).mean(), abs=1e-6)


def test_single_logit() -> None:
    logits, y, loss_fn = torch.tensor([2.0, -1.0, 3.0]), torch.tensor([0, 1, 1]), LogisticLoss()
    wrong, classes = WrongClassProbability(), MistakeClasses(2)
    wrong.update(loss_fn.probabilities(logits), loss_fn.predict(logits), y)
    classes.update(loss_fn.predict(logits), y)
    expected = np.mean(1 / (1 + np.exp(-np.array([2.0, 1.0]))))
    assert wrong.compute().item() == pytest.approx(expected, abs=1e-6)
    assert classes.compute().tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_precision(dtype: torch.dtype) -> None:
    probabilities, predicted, y = draw()
    probabilities = probabilities.to(dtype)
    metric, histogram = WrongClassProbability(), ConfidenceHistogram()
    metric.update(probabilities, predicted, y)
    histogram.update(probabilities, predicted, y)
    p, wrong = probabilities.double().numpy(), (predicted != y).numpy()
    others = p.sum(axis=1) - p[np.arange(len(p)), y.numpy()]
    assert metric.compute().item() == pytest.approx(others[wrong].mean(), abs=1e-6)
    assert histogram.compute().sum(dim=1).tolist() == [(~wrong).sum(), wrong.sum()]


def test_order_does_not_matter() -> None:
    data = draw(1000)
    found = set()
    for seed in range(5):
        metric = WrongClassProbability()
        for batch in random_batches(*data, seed=seed):
            metric.update(*batch)
        found.add(metric.compute().item())
    assert len(found) == 1


@pytest.mark.parametrize("seed", range(5))
def test_mistake_classes(seed: int) -> None:
    _, predicted, y = draw(seed=seed)
    metric = MistakeClasses(4)
    for batch in random_batches(predicted, y, seed=seed):
        metric.update(*batch)
    expected = [sum(k == c != t for k, t in zip(predicted.tolist(), y.tolist(), strict=True)) for c in range(4)]
    assert min(expected) > 0
    assert metric.compute().dtype == torch.int64
    assert metric.compute().tolist() == expected


@pytest.mark.parametrize(("bins", "seed"), [(20, 0), (20, 1), (7, 2), (1, 3)])
def test_histogram_equals_numpy(bins: int, seed: int) -> None:
    probabilities, predicted, y = draw(1000, seed=seed)
    metric = ConfidenceHistogram(bins)
    for batch in random_batches(probabilities, predicted, y, seed=seed):
        metric.update(*batch)
    confidence, wrong = probabilities.amax(1).double().numpy(), (predicted != y).numpy()
    for row, part in zip(metric.compute(), (confidence[~wrong], confidence[wrong]), strict=True):
        assert row.dtype == torch.int64
        assert row.tolist() == np.histogram(part, bins, range=(0, 1))[0].tolist()


def test_edges_of_the_bins() -> None:
    confidence = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.75 - 2**-20])
    metric = ConfidenceHistogram(4)
    metric.update(confidence[:, None], torch.zeros(6, dtype=torch.int64), torch.tensor([0, 0, 0, 0, 0, 1]))
    assert metric.compute().tolist() == [[1, 1, 1, 2], [0, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_agreement(seed: int) -> None:
    a, b, y = torch.randint(3, (3, 200), generator=torch.Generator().manual_seed(seed))
    metric = Agreement()
    for batch in random_batches(a, b, y, seed=seed):
        metric.update(*batch)
    triples = list(zip(a.tolist(), b.tolist(), y.tolist(), strict=True))
    parts = [triples, [t for t in triples if t[0] != t[2]], [t for t in triples if t[2] not in t[:2]]]
    equal = [sum(i == j for i, j, _ in part) for part in parts]
    assert metric.total.tolist() == [len(part) for part in parts]
    assert metric.equal.tolist() == equal
    assert metric.compute().tolist() == pytest.approx([e / len(p) for e, p in zip(equal, parts, strict=True)])


def test_agreement_if_one_is_wrong() -> None:
    # a is wrong on three, and b on one of these, where both predict the same class.
    metric = Agreement()
    metric.update(torch.tensor([1, 2, 0, 0]), torch.tensor([1, 0, 0, 1]), torch.tensor([0, 0, 0, 1]))
    assert metric.compute().tolist() == pytest.approx([1 / 2, 1 / 3, 1])


def test_without_a_mistake() -> None:
    y = torch.tensor([0, 1])
    wrong, classes, agreement = WrongClassProbability(), MistakeClasses(2), Agreement()
    wrong.update(torch.eye(2), y, y)
    classes.update(y, y)
    agreement.update(y, y, y)
    assert math.isnan(wrong.compute())
    assert classes.compute().tolist() == [0, 0]
    assert agreement.compute()[0] == 1
    assert agreement.compute()[1:].isnan().all()


def test_results_stay_when_more_examples_come() -> None:
    _, predicted, y = draw()
    metric = MistakeClasses(4)
    metric.update(predicted, y)
    before = metric.compute()
    expected = before.tolist()
    metric.update(predicted, y)
    assert before.tolist() == expected
    assert metric.compute().tolist() == [2 * count for count in expected]


def test_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"num_classes=1.*at least 2"):
        MistakeClasses(1)
    with pytest.raises(ValueError, match=r"bins=0.*at least 1"):
        ConfidenceHistogram(0)


def test_a_probability_that_is_nan_is_left_out() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [math.nan, math.nan]])
    predicted, y = torch.tensor([0, 0]), torch.tensor([1, 1])
    confidence, wrong = MistakeConfidence(), WrongClassProbability()
    for metric in (confidence, wrong):
        metric.update(probabilities, predicted, y)
        assert metric.compute().item() == pytest.approx(0.9, abs=1e-6)
