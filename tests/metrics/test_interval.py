from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from adv_lightning.metrics import wilson_interval


def closed_form(count: int, n: int, level: float) -> tuple[float, float]:
    z, p = NormalDist().inv_cdf((1 + level) / 2), count / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("count", "n"), [(1, 1), (3, 10), (94, 10_000), (9_999, 10_000), (500_000, 1_000_000)])
def test_equals_the_closed_form(count: int, n: int, level: float) -> None:
    assert wilson_interval(count, n, level) == pytest.approx(closed_form(count, n, level), abs=1e-12)


@pytest.mark.parametrize("n", [1, 10, 10_000])
def test_has_a_width_where_all_or_none_are_counted(n: int) -> None:
    z = NormalDist().inv_cdf(0.975)
    low, high = wilson_interval(0, n)
    assert low == 0
    assert high == pytest.approx(z * z / (n + z * z), rel=1e-9)
    low, high = wilson_interval(n, n)
    assert low == pytest.approx(n / (n + z * z), rel=1e-9)
    assert high == 1


def test_holds_the_true_share_as_often_as_it_says() -> None:
    counts = np.random.default_rng(0).binomial(200, 0.1, 4000)
    ends = {count: wilson_interval(count, 200) for count in set(counts.tolist())}
    held = np.mean([ends[count][0] <= 0.1 <= ends[count][1] for count in counts.tolist()])
    assert 0.94 < held < 0.97


def test_of_nothing_nothing_is_known() -> None:
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


@pytest.mark.parametrize(("count", "n", "level"), [(-1, 10, 0.95), (11, 10, 0.95), (1, 10, 0), (1, 10, 1), (1, 10, 95)])
def test_refuses_what_is_no_share(count: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"count=.*give a count from 0 to n|level=.*give a share between 0 and 1"):
        wilson_interval(count, n, level)
