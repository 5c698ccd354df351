from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from adv_lightning.metrics import wilson_interval


def test_equals_scipy() -> None:
    pairs = [(0, 1), (1, 1), (3, 10), (0, 360), (360, 360), (94, 10_000), (9_999, 10_000), (500_000, 1_000_000)]
    for (count, n), level in product(pairs, (0.01, 0.5, 0.9, 0.95, 0.99, 0.999999)):
        expected = binomtest(count, n).proportion_ci(level, method="wilson")
        low, high = wilson_interval(count, n, level)
        assert (low, high) == pytest.approx((expected.low, expected.high), rel=0, abs=1e-12), (count, n, level)
    for count, n in pairs:
        assert wilson_interval(count, n) == wilson_interval(count, n, 0.95)


def test_ends_of_all_and_none() -> None:
    z = 1.959963984540054
    for n in (1, 10, 10_000):
        assert wilson_interval(0, n) == (0, pytest.approx(z * z / (n + z * z), rel=1e-12))
        assert wilson_interval(n, n) == (pytest.approx(n / (n + z * z), rel=1e-12), 1)
    for level in (0.002, 0.004):  # here the rounded formula ends above and below 1
        assert wilson_interval(0, 1, level)[0] == 0
        assert wilson_interval(1, 1, level)[1] == 1


def test_holds_the_true_share_as_often_as_it_says() -> None:
    counts = np.random.default_rng(0).binomial(200, 0.1, 4000)
    ends = {count: wilson_interval(count, 200) for count in set(counts.tolist())}
    held = np.mean([ends[count][0] <= 0.1 <= ends[count][1] for count in counts.tolist()])
    assert 0.94 < held < 0.97


def test_extreme_levels() -> None:
    assert wilson_interval(3, 10, 1e-300) == pytest.approx((0.3, 0.3))
    low, high = wilson_interval(3, 10, math.nextafter(1, 0))
    assert 0 < low < 0.02
    assert 0.9 < high < 1


def test_of_nothing() -> None:
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


def test_refuses_what_is_not_a_share() -> None:
    for count in (-1, 11):
        with pytest.raises(ValueError, match=f"count={count} of n=10"):
            wilson_interval(count, 10)
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=rf"level={level}.*between 0 and 1"):
            wilson_interval(1, 10, level)
