"""The metrics of one evaluation epoch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from adv_lightning.metrics.error import ErrorRate, MistakeConfidence


class EpochMetrics(nn.Module):
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

    def add(self, predicted: Tensor, y: Tensor, loss: Tensor) -> None:
        """Count clean examples: predicted classes, int64 [B], targets, int64 [B], and their mean loss, a scalar."""
        # Once for each example: with nan_strategy="disable" torchmetrics 1.9 ignores a weight.
        self.loss.update(loss.expand(len(y)))
        self.error.update(predicted, y)

    def add_attacked(self, predicted: Tensor, probabilities: Tensor, y: Tensor) -> None:
        """Count attacked examples: predicted classes, int64 [B], probabilities, [B, K], targets, int64 [B]; B >= 0."""
        self.adv_error.update(predicted, y)
        self.adv_confidence.update(probabilities, predicted, y)

    def measured(self) -> dict[str, Metric]:
        """Return by name what there is to log: nothing under attack if there was none, no confidence of no mistake."""
        metrics: dict[str, Metric] = {"loss": self.loss, "error": self.error}
        if self.adv_error.update_called:
            metrics["adv_error"] = self.adv_error
            if not self.adv_confidence.compute().isnan():
                metrics["adv_confidence"] = self.adv_confidence
        return metrics
