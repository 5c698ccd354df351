"""Means of training losses, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningMeans:
    """RunningMeans of scalars over the steps of an epoch, kept on the device until they are logged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._pending: dict[str, list[Tensor]] = {}
        self._steps = 0

    def add(self, parts: Mapping[str, Tensor | None]) -> None:
        """Add one step: scalars by name, detached; what is None is left out."""
        for name, value in parts.items():
            if value is not None:
                self._pending.setdefault(name, []).append(value)
        self._steps += 1
        if self._steps % 64 == 0:  # rarely, as each addition costs a small net a measurable part of its step
            self._fold()

    def join(self, other: RunningMeans) -> None:
        """Add the steps of another."""
        other._fold()
        self._add(other._sums)
        self._steps += other._steps

    def named(self, pattern: str) -> dict[str, Tensor]:
        """Return the means under names such as "train/{}"."""
        self._fold()
        return {pattern.format(name): value / self._steps for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what has been added, as it is: sums taken at other places would differ by rounding."""
        sums = {f"sum/{name}": value for name, value in self._sums.items()}
        pending = {f"pending/{name}": _stacked(values) for name, values in self._pending.items()}
        return {**sums, **pending, "steps": torch.tensor(self._steps)}

    @classmethod
    def of(cls, state: Mapping[str, Tensor], rank: int, processes: int) -> RunningMeans:
        """Return the means that `state_dict` told of, gathered over processes; new ones if their number has changed.

        Args:
            state: Each tensor with a first dimension for the processes, if there were several.
            rank: Number of this process.
            processes: How many there are now.
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
        # Sums in half precision would be coarse.
        self._add({k: v.sum(dtype=torch.promote_types(v.dtype, torch.float32)) for k, v in stacked.items()})

    def _add(self, sums: Mapping[str, Tensor]) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value


class TrainingMeans:
    """The means of an epoch's training losses, since the last log and over the epoch, and those that callbacks add."""

    def __init__(self) -> None:
        self.parts = {"interval": RunningMeans(), "epoch": RunningMeans()}

    def start_epoch(self) -> None:
        """Start new means of the losses; those of callbacks stay."""
        self.parts |= {"interval": RunningMeans(), "epoch": RunningMeans()}

    def add(self, losses: Mapping[str, Tensor | None]) -> None:
        """Add the losses of one step."""
        self.parts["interval"].add(losses)

    def take_interval(self) -> dict[str, Tensor]:
        """Return the means since the last call, as `train/<name>`, and start them anew."""
        interval, self.parts["interval"] = self.parts["interval"], RunningMeans()
        self.parts["epoch"].join(interval)
        return interval.named("train/{}")

    def of_epoch(self) -> dict[str, Tensor]:
        """Return the means of the epoch, as `train/<name>_epoch`."""
        self.parts["epoch"].join(self.parts["interval"])
        return self.parts["epoch"].named("train/{}_epoch")

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return what goes into a checkpoint, by part."""
        return {name: means.state_dict() for name, means in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], rank: int, processes: int) -> None:
        """Go on with what `state_dict` told of, gathered over processes; see `RunningMeans.of`."""
        for name, part in state.items():
            self.parts[name] = RunningMeans.of(part, rank, processes)


def _stacked(values: list[Tensor]) -> Tensor:
    # Those that a checkpoint brought are on the CPU.
    return torch.stack([value.to(values[-1].device) for value in values])
