"""Metrics that keep sums as states, so that DDP reduces them exactly, and a confidence interval for their rates."""

from adv_lightning.metrics.agreement import Agreement
from adv_lightning.metrics.classes import MistakeClasses
from adv_lightning.metrics.error import ErrorRate, MistakeConfidence, WrongClassProbability
from adv_lightning.metrics.histogram import ConfidenceHistogram
from adv_lightning.metrics.interval import wilson_interval
from adv_lightning.metrics.locality import locality
from adv_lightning.metrics.rubbish import RubbishRate

__all__ = [
    "Agreement",
    "ConfidenceHistogram",
    "ErrorRate",
    "MistakeClasses",
    "MistakeConfidence",
    "RubbishRate",
    "WrongClassProbability",
    "locality",
    "wilson_interval",
]
