"""Metrics with sums as states, exact under DDP."""

from adv_lightning.metrics.error import ErrorRate, MistakeConfidence
from adv_lightning.metrics.rubbish import RubbishRate

__all__ = ["ErrorRate", "MistakeConfidence", "RubbishRate"]
