"""Measure several contestants in turn, so that a busy machine is unfair to all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in their unit."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up measurements, at least one; quartiles between two of them are interpolated linearly."""
        low, median, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
        return cls(median, low, high, len(values))

    def over(self, other: Spread) -> float:
        """Return the ratio of the medians."""
        return self.median / other.median

    def show(self, factor: float = 1.0, digits: int = 3) -> str:
        """Write "median (low-high)" times `factor`, in significant digits."""
        return "{} ({}\u2013{})".format(*(figure(factor * v, digits) for v in (self.median, self.low, self.high)))


def figure(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, never as a power of ten."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, digits - max(1, whole))}f}"


@dataclass(frozen=True)
class Run:
    """How to measure.

    Args:
        device: Where the networks are.
        quick: Few rounds of small things, to see that it works.
        rounds: Rounds of every group; None: what each needs.
        steps: Steps of the epoch that is timed.
        data: Folder of MNIST for that epoch; None: random images.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    quick: bool = False
    rounds: int | None = None
    steps: int = 600
    data: str | None = None

    def rounds_of(self, usual: int) -> int:
        """Return the number of rounds of a group that usually takes so many."""
        return self.rounds or (2 if self.quick else usual)

    def now(self) -> float:
        """Return the time in seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, action: Callable[[], object]) -> Callable[[], float]:
        """Return what does the action and returns the seconds it took."""

        def measure() -> float:
            start = self.now()
            action()
            return self.now() - start

        return measure


def interleaved(contestants: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1) -> dict[str, Spread]:
    """Let each contestant measure once a round, in turn; the first `warmup` rounds do not count."""
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for n in range(warmup + rounds):
        for name, measure in contestants.items():
            value = measure()
            if n >= warmup:
                values[name].append(value)
    return {name: Spread.of(found) for name, found in values.items()}
