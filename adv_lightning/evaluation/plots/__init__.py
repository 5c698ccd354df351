"""Matplotlib figures of numbers, independent of networks and trainers."""

from adv_lightning.evaluation.plots.filters import filters, weights_and_sign
from adv_lightning.evaluation.plots.fooling import image_grid
from adv_lightning.evaluation.plots.heatmap import heat_map
from adv_lightning.evaluation.plots.histogram import class_bars, confidence_histogram
from adv_lightning.evaluation.plots.sweep import error_against_eps, logit_sweep
from adv_lightning.evaluation.plots.triptych import triptych

__all__ = [
    "class_bars",
    "confidence_histogram",
    "error_against_eps",
    "filters",
    "heat_map",
    "image_grid",
    "logit_sweep",
    "triptych",
    "weights_and_sign",
]
