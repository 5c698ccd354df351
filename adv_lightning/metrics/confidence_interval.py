"""Confidence interval of a rate."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share (Wilson 1927): (low, high) in [0, 1], or NaN twice if n is 0.

    It has a width even if count is 0 or n, as error rates often are. With p = count / n and z the normal quantile of
    (1 + level) / 2, the ends are (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

    Args:
        count: Number of hits, such as mistakes.
        n: Number of independent trials, such as examples.
        level: Share of such intervals that hold the true share, in (0, 1).

    Raises:
        ValueError: count is negative or above n, or level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: give a share between 0 and 1, such as 0.95")
    if not 0 <= count <= n:
        raise ValueError(f"count={count!r} of n={n!r}: give a count from 0 to n")
    if n == 0:
        return math.nan, math.nan
    z = -NormalDist().inv_cdf((1 - level) / 2)  # the lower tail: near level 1, (1 + level) / 2 rounds to 1
    denominator = 2 * (n + z * z)
    centre = (2 * count + z * z) / denominator
    half = z * math.sqrt(4 * count * (n - count) / n + z * z) / denominator
    # Rounding would leave the ends slightly inside of 0 and 1.
    return 0.0 if count == 0 else centre - half, 1.0 if count == n else centre + half
