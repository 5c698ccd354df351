"""Metrics whose states are sums, so that several processes reduce them exactly."""

from adv_lightning.metrics.error import ErrorRate, MistakeConfidence

__all__ = ["ErrorRate", "MistakeConfidence"]
