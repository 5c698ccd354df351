"""Checks of the arguments that attacks share."""

from __future__ import annotations

import math

from torch import Tensor


def magnitude(name: str, value: float | str) -> float:
    """Read a size such as eps: a number >= 0, or a fraction written '8/255'.

    Raises:
        ValueError: `value` is negative, not finite, or not a number.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str):
            numerator, _, denominator = value.partition("/")
            number = float(numerator) / float(denominator or 1)
        else:
            number = float(value)
        if not (math.isfinite(number) and number >= 0):
            raise ValueError
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(
            f"{name}={value!r}: give a finite number >= 0, such as 0.25, or a fraction such as 8/255"
        ) from None
    return number


def check_bounds(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return `bounds` as a pair of floats, or None for unclipped.

    Raises:
        ValueError: `bounds` is not two numbers in increasing order.
    """
    if bounds is None:
        return None
    low, high = (float(bound) for bound in bounds)
    if not low < high:
        raise ValueError(
            f"bounds={bounds!r}: give (lowest, highest) pixel value, such as (0, 1), or None for unclipped"
        )
    return low, high


def clip(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Clamp `x` to `bounds`; None leaves it unchanged."""
    return x if bounds is None else x.clamp(*bounds)
