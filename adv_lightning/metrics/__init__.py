"""Metrics that keep sums as states, so that DDP reduces them exactly, and a confidence interval for their rates."""

from adv_lightning.metrics.agreement import Agreement
from adv_lightning.metrics.confidence_histogram import ConfidenceHistogram
from adv_lightning.metrics.confidence_interval import wilson_interval
from adv_lightning.metrics.error_rate import ErrorRate, MistakeConfidence, WithoutClass, WrongClassProbability
from adv_lightning.metrics.filter_locality import locality
from adv_lightning.metrics.judged_examples import JudgedExamples
from adv_lightning.metrics.mistake_classes import MistakeClasses
from adv_lightning.metrics.rubbish_rate import RubbishRate

__all__ = [
    "Agreement",
    "ConfidenceHistogram",
    "ErrorRate",
    "JudgedExamples",
    "MistakeClasses",
    "MistakeConfidence",
    "RubbishRate",
    "WithoutClass",
    "WrongClassProbability",
    "locality",
    "wilson_interval",
]
