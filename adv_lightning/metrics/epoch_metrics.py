"""The metrics of one evaluation epoch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from adv_lightning.metrics.error_rate import ErrorRate, MistakeConfidence, WithoutClass


class EpochMetrics(nn.Module):
    """Loss and error on clean examples, error and confidence on attacked examples."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")
        self.error = ErrorRate()
        self.adv_error = ErrorRate()
        self.adv_confidence = MistakeConfidence()
        self.not_finite, self.unlabelled = WithoutClass(), WithoutClass()

    def reset(self) -> None:
        """Start an epoch."""
        for metric in (self.loss, self.error, self.adv_error, self.adv_confidence, self.not_finite, self.unlabelled):
            metric.reset()
        self.loss.set_dtype(torch.float32)  # a sum in half precision would be inaccurate

    def add(self, predicted: Tensor, y: Tensor, loss: Tensor) -> None:
        """Add clean examples: predicted classes, int64 [B], targets, int64 [B], and their mean loss, a scalar."""
        # One value per example: with nan_strategy="disable" torchmetrics 1.9 ignores a weight.
        self.loss.update(loss.expand(len(y)))
        self.error.update(predicted, y)
        self.not_finite.update(predicted)
        self.unlabelled.update(y)

    def add_attacked(self, predicted: Tensor, probabilities: Tensor, y: Tensor) -> None:
        """Add attacked examples: predicted classes, int64 [B], probabilities, [B, K], targets, int64 [B]; B >= 0."""
        self.adv_error.update(predicted, y)
        self.adv_confidence.update(probabilities, predicted, y)
        self.not_finite.update(predicted)

    def measured(self) -> dict[str, Metric]:
        """Return the metrics to log by name.

        None under attack without an attack, no confidence without a mistake, and a number of predictions whose logits
        are not finite only if there are any.

        Raises:
            ValueError: a label is below 0, and so no class.
        """
        if number := int(self.unlabelled.compute()):
            raise ValueError(
                f"{number} labels are below 0, so that the error cannot be measured: remove these examples from the "
                "set. A loss may leave them out, but not an error rate"
            )
        metrics: dict[str, Metric] = {"loss": self.loss, "error": self.error}
        if self.adv_error.update_called:
            metrics["adv_error"] = self.adv_error
            if not self.adv_confidence.compute().isnan():
                metrics["adv_confidence"] = self.adv_confidence
        if self.not_finite.compute() > 0:
            metrics["not_finite"] = self.not_finite
        return metrics
