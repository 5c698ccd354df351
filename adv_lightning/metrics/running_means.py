"""Means of training losses over examples, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_PENDING = 64
"""Number of steps whose values wait to be summed together: each sum costs a small net a measurable part of its step."""


class RunningMeans:
    """Means of named scalars, which are means over batches, kept on the device until they are logged.

    A batch counts by its size: a scalar is summed in units of the first batch, so that batches of one size need no
    multiplication.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._pending: dict[str, list[Tensor]] = {}
        self._steps = 0
        self._size = 0  # of the first batch
        self._examples = 0

    def add(self, values: Mapping[str, Tensor | None], size: int = 1) -> None:
        """Add one step: detached scalars by name, means over `size` examples. None is skipped."""
        self._measure_by(size)
        for name, value in values.items():
            if value is not None:
                value = value if size == self._size else value * (size / self._size)
                self._pending.setdefault(name, []).append(value)
        self._steps += 1
        self._examples += size
        if self._steps % _PENDING == 0:
            self._fold()

    def join(self, other: RunningMeans) -> None:
        """Add the steps of another."""
        other._fold()
        if other._size:
            self._measure_by(other._size)
        elif self._size:
            other._measure_by(self._size)
        same = other._size == self._size
        sums = other._sums.items()
        self._add(other._sums if same else {name: value * (other._size / self._size) for name, value in sums})
        self._steps += other._steps
        self._examples += other._examples

    def named(self, pattern: str) -> dict[str, Tensor]:
        """Return the means, named by a pattern such as "train/{}"."""
        self._fold()
        batches = self._examples / self._size if self._size else self._steps
        return {pattern.format(name): value / batches for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums and the values not yet summed. Summing them here would change the rounding after a resume."""
        sums = {f"sum/{name}": value for name, value in self._sums.items()}
        pending = {f"pending/{name}": _stacked(values) for name, values in self._pending.items()}
        counts = {"steps": self._steps, "size": self._size, "examples": self._examples}
        return {**sums, **pending, **{name: torch.tensor(count) for name, count in counts.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], rank: int, processes: int) -> RunningMeans:
        """Restore the means of a `state_dict`, gathered over processes. Empty if the number of processes has changed.

        Args:
            state: Tensors of `state_dict`, each with a first dimension over processes if there were several.
            rank: Rank of this process.
            processes: Current number of processes.
        """
        means = cls()
        if state["steps"].numel() != processes:
            return means
        for key, gathered in state.items():
            value = gathered if state["steps"].dim() == 0 else gathered[rank]
            kind, _, name = key.partition("/")
            if kind == "sum":
                means._sums[name] = value
            elif kind == "pending":
                means._pending[name] = list(value)
            else:
                setattr(means, f"_{kind}", int(value))
        return means

    def _measure_by(self, size: int) -> None:
        """Make `size` the unit if there is none yet, as in the state of a release that did not count examples."""
        if not self._size:
            self._size, self._examples = size, size * self._steps

    def _fold(self) -> None:
        pending, self._pending = self._pending, {}
        stacked = {name: _stacked(values) for name, values in pending.items()}
        # Sums in half precision would be inaccurate.
        self._add({k: v.sum(dtype=torch.promote_types(v.dtype, torch.float32)) for k, v in stacked.items()})

    def _add(self, sums: Mapping[str, Tensor]) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value


class TrainingMeans:
    """Means of the training losses, since the last log and over the epoch. Callbacks may add parts of their own.

    "interval" holds the steps of this epoch since the last log, "earlier" those of the epochs before it, and "epoch"
    the steps of this epoch until the last log.
    """

    def __init__(self) -> None:
        self.parts = {name: RunningMeans() for name in ("earlier", "interval", "epoch")}

    def start_epoch(self) -> None:
        """Reset the means of the epoch, but not those since the last log, nor those of callbacks."""
        self.parts["earlier"].join(self.parts["interval"])
        self.parts |= {"interval": RunningMeans(), "epoch": RunningMeans()}

    def add(self, losses: Mapping[str, Tensor | None], size: int) -> None:
        """Add the losses of one step, means over `size` examples."""
        self.parts["interval"].add(losses, size)

    def take_interval(self) -> dict[str, Tensor]:
        """Return the means since the last call, as `train/<name>`, and reset them."""
        interval, earlier = self.parts["interval"], self.parts["earlier"]
        self.parts["epoch"].join(interval)
        earlier.join(interval)
        self.parts |= {"earlier": RunningMeans(), "interval": RunningMeans()}
        return earlier.named("train/{}")

    def of_epoch(self) -> dict[str, Tensor]:
        """Return the means of the epoch so far, as `train/<name>_epoch`."""
        whole = RunningMeans()
        for name in ("epoch", "interval"):
            whole.join(self.parts[name])
        return whole.named("train/{}_epoch")

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the state of each part, for a checkpoint."""
        return {name: means.state_dict() for name, means in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], rank: int, processes: int) -> None:
        """Restore the parts of a `state_dict`, gathered over processes. See `RunningMeans.from_state`."""
        for name, part in state.items():
            self.parts[name] = RunningMeans.from_state(part, rank, processes)


def _stacked(values: list[Tensor]) -> Tensor:
    # Values restored from a checkpoint are on the CPU.
    return torch.stack([value.to(values[-1].device) for value in values])
