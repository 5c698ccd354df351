"""Weights as images (Goodfellow et al. 2015, figures 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from adv_lightning.evaluation.plots._common import Array, Values, same_length
from adv_lightning.evaluation.plots._mosaic import Mosaic, columns_for, pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = "RdBu_r"  # two hues that colour-blind people can tell apart, with white between them
_SHOWN = 0.995  # share of the weights within the scale: a few large ones would make the rest pale


def filters(weights: Values, titles: Sequence[str] | None = None, columns: int | None = None) -> Figure:
    """Draw the filters of a first layer in a grid, on one scale that is symmetric around zero.

    The scale covers 99.5 % of the weights; weights beyond it have the colour of its ends.

    Args:
        weights: [N, C, H, W] with C = 1 or 3, or [N, H, W].
        titles: One above each filter.
        columns: Number of filters in a row, such as the pieces of a maxout unit. None: a grid wider than high.

    Raises:
        ValueError: `weights` has another shape, `titles` another length, or `columns` is below 1.
    """
    images = pictures("weights", weights)
    span = _span(images)
    columns = columns_for(len(images)) if columns is None else columns
    mosaic = Mosaic(list(images), [(-span, span)] * len(images), columns, titles, colours=_COLOURS)
    return mosaic.figure(f"{_meaning(images)}; {_scale(images, span)}.")


def weights_and_sign(weights: Values, titles: Sequence[str] | None = None) -> Figure:
    """Draw the weights of each class of a linear model, and below them their sign, the strongest perturbation.

    The scale of the weights is as in `filters`.

    Args:
        weights: [K, C, H, W] with C = 1 or 3, or [K, H, W].
        titles: One above each class.

    Raises:
        ValueError: `weights` has another shape, or `titles` another length.
    """
    images = pictures("weights", weights)
    same_length(len(images), "classes", titles=titles)
    names = list(titles) if titles is not None else [""] * len(images)
    span, columns = _span(images), min(len(images), 10)
    cells: list[Array | None] = []
    texts: list[str] = []
    for start in range(0, len(images), columns):
        band, labels = list(images[start : start + columns]), names[start : start + columns]
        empty = [None] * (columns - len(band))
        cells += [*band, *empty, *(np.sign(image) for image in band), *empty]
        texts += [*labels, *("" for _ in empty), *("" for _ in range(columns))]
    row = [(-span, span)] * columns + [(-1.6, 1.6)] * columns  # the ends of the colour map are too dark to tell apart
    mosaic = Mosaic(cells, row * (len(cells) // len(row)), columns, texts, colours=_COLOURS)
    return mosaic.figure(f"Above: the weights; {_scale(images, span)}. Below: their sign. {_meaning(images)}.")


def _span(images: Array) -> float:
    sizes = np.abs(images[np.isfinite(images)])
    return float(np.quantile(sizes, _SHOWN) if sizes.size else 0) or float(sizes.max(initial=0)) or 1.0


def _scale(images: Array, span: float) -> str:
    beyond = (np.abs(images) > span).mean()
    return f"scale \u00b1{span:.2g}" + (f", {beyond:.1%} of the weights lie beyond it" if beyond else "")


def _meaning(images: Array) -> str:
    return "Red is above zero, blue below" if images.shape[-1] == 1 else "Grey is zero in each colour channel"
