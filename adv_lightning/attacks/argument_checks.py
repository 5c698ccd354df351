"""Checks of the arguments that attacks share."""

from __future__ import annotations

import math

from lightning_utilities.core.rank_zero import rank_zero_warn
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


def warn_of_short_walk(attack: str, eps: float, steps: int, step_size: float, name: str = "step_size") -> None:
    """Warn of steps that cannot lead from the clean input to the edge of its ball. A step of 0 is taken as meant."""
    walk = steps * step_size
    if 0 < walk < eps * (1 - 1e-6):
        rank_zero_warn(
            f"{attack}: steps * {name} = {steps} * {step_size:.4g} = {walk:.4g} is less than eps={eps:.4g}, so the "
            f"edge of the ball is out of reach. Take more steps, or a longer {name}; 2.5 * eps / steps is "
            f"{2.5 * eps / steps:.4g}",
            stacklevel=4,
        )


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
