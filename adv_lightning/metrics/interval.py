"""How far a share that was counted may be from the true one."""

from __future__ import annotations

import math


def wilson_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share (Wilson 1927): (low, high) in [0, 1]; NaN twice where n is 0.

    It has a width also where the count is 0 or n, as error rates often are.

    Args:
        count: How many of the n, such as mistakes.
        n: Number of independent trials, such as examples.
        level: Share of such intervals that hold the true share, in (0, 1).

    Raises:
        ValueError: count is negative or above n, or level lies outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: give a share between 0 and 1, such as 0.95")
    if not 0 <= count <= n:
        raise ValueError(f"count={count!r} of n={n!r}: give a count from 0 to n")
    if n == 0:
        return math.nan, math.nan
    from scipy.stats import binomtest  # takes a second to import

    interval = binomtest(count, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
