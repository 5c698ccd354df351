"""The figures of an epoch: means of the training losses, and counts of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from adv_lightning.losses import Loss
from adv_lightning.metrics import ErrorRate, MistakeConfidence


class Figures(nn.Module):
    """Loss and error of the clean examples of an evaluation, error and confidence of those under attack."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")
        self.error = ErrorRate()
        self.adv_error = ErrorRate()
        self.adv_confidence = MistakeConfidence()

    def reset(self) -> None:
        """Start new counts."""
        for metric in (self.loss, self.error, self.adv_error, self.adv_confidence):
            metric.reset()
        self.loss.set_dtype(torch.float32)  # half precision would make the sum coarse

    def add(self, logits: Tensor, y: Tensor, loss: Tensor, loss_fn: Loss) -> None:
        """Count clean logits, [B, K], with their mean loss, a scalar."""
        # Once for each example: with nan_strategy="disable" torchmetrics 1.9 ignores a weight.
        self.loss.update(loss.expand(len(y)))
        self.error.update(loss_fn.predict(logits), y)

    def add_attacked(self, logits: Tensor, y: Tensor, loss_fn: Loss) -> None:
        """Count logits under attack, [B, K]; B may be 0."""
        predicted = loss_fn.predict(logits)
        self.adv_error.update(predicted, y)
        self.adv_confidence.update(loss_fn.probabilities(logits), predicted, y)

    def measured(self) -> dict[str, Metric]:
        """Return by name what there is to log: nothing under attack if there was none, no confidence of no mistake."""
        metrics: dict[str, Metric] = {"loss": self.loss, "error": self.error}
        if self.adv_error.update_called:
            metrics["adv_error"] = self.adv_error
            if not self.adv_confidence.compute().isnan():
                metrics["adv_confidence"] = self.adv_confidence
        return metrics


class Means:
    """Means of scalars over the steps of an epoch, kept on the device until they are logged."""

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

    def join(self, other: Means) -> None:
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
    def of(cls, state: Mapping[str, Tensor], rank: int, processes: int) -> Means:
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


def _stacked(values: list[Tensor]) -> Tensor:
    # Those that a checkpoint brought are on the CPU.
    return torch.stack([value.to(values[-1].device) for value in values])


def share(samples: int | None, rank: int, world_size: int, seen: int, batch: int) -> int:
    """Return how many examples of this batch are among the first `samples` of the set, dealt out in turn to processes.

    Args:
        samples: Number of examples over all processes. None: all.
        rank: Number of this process.
        world_size: Number of processes.
        seen: Examples that this process has had before.
        batch: Examples in this batch.
    """
    if samples is None:
        return batch
    own = -(-(samples - rank) // world_size)
    return max(0, min(batch, own - seen))
