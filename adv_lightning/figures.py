"""The figures of an epoch: means of the training losses, and counts of an evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from adv_lightning.losses import Loss
from adv_lightning.metrics import ErrorRate, MistakeConfidence
from adv_lightning.objective import Objective


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
    """Means of the parts of the objective over steps, kept on the device until they are logged."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, total: Tensor, objective: Objective) -> None:
        """Add one step: its total loss, detached, and the parts of its objective."""
        parts = {"loss": total, "clean_loss": objective.clean, "adv_loss": objective.adversarial}
        # Sums in half precision would soon stand still.
        self._add({k: v.to(torch.promote_types(v.dtype, torch.float32)) for k, v in parts.items() if v is not None}, 1)

    def join(self, other: Means) -> None:
        """Add the steps of another."""
        self._add(other.sums, other.steps)

    def named(self, pattern: str) -> dict[str, Tensor]:
        """Return the means under names such as "train/{}"."""
        return {pattern.format(name): value / self.steps for name, value in self.sums.items()}

    def _add(self, sums: dict[str, Tensor], steps: int) -> None:
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += steps


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
