"""Means of training losses over steps, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_PENDING = 64
"""Number of steps whose values wait to be summed together: each sum costs a small net a measurable part of its step."""


class RunningMeans:
    """Means of named scalars over steps, kept on the device until they are logged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._pending: dict[str, list[Tensor]] = {}
        self._steps = 0

    def add(self, values: Mapping[str, Tensor | None]) -> None:
        """Add one step: detached scalars by name. None is skipped."""
        for name, value in values.items():
            if value is not None:
                self._pending.setdefault(name, []).append(value)
        self._steps += 1
        if self._steps % _PENDING == 0:
            self._fold()

    def join(self, other: RunningMeans) -> None:
        """Add the steps of another."""
        other._fold()
        self._add(other._sums)
        self._steps += other._steps

    def named(self, pattern: str) -> dict[str, Tensor]:
        """Return the means, named by a pattern such as "train/{}"."""
        self._fold()
        return {pattern.format(name): value / self._steps for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums and the values not yet summed. Summing them here would change the rounding after a resume."""
        sums = {f"sum/{name}": value for name, value in self._sums.items()}
        pending = {f"pending/{name}": _stacked(values) for name, values in self._pending.items()}
        return {**sums, **pending, "steps": torch.tensor(self._steps)}

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
                means._steps = int(value)
        return means

    def _fold(self) -> None:
        pending, self._pending = self._pending, {}
        stacked = {name: _stacked(values) for name, values in pending.items()}
        # Sums in half precision would be inaccurate.
        self._add({k: v.sum(dtype=torch.promote_types(v.dtype, torch.float32)) for k, v in stacked.items()})

    def _add(self, sums: Mapping[str, Tensor]) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value


class TrainingMeans:
    """Means of the training losses, since the last log and over the epoch. Callbacks may add parts of their own."""

    def __init__(self) -> None:
        self.parts = {"interval": RunningMeans(), "epoch": RunningMeans()}

    def start_epoch(self) -> None:
        """Reset the means of the losses, but not those of callbacks."""
        self.parts |= {"interval": RunningMeans(), "epoch": RunningMeans()}

    def add(self, losses: Mapping[str, Tensor | None]) -> None:
        """Add the losses of one step."""
        self.parts["interval"].add(losses)

    def take_interval(self) -> dict[str, Tensor]:
        """Return the means since the last call, as `train/<name>`, and reset them."""
        interval, self.parts["interval"] = self.parts["interval"], RunningMeans()
        self.parts["epoch"].join(interval)
        return interval.named("train/{}")

    def of_epoch(self) -> dict[str, Tensor]:
        """Return the means of the epoch, as `train/<name>_epoch`."""
        self.parts["epoch"].join(self.parts["interval"])
        return self.parts["epoch"].named("train/{}_epoch")

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
