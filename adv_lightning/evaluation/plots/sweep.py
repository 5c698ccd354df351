"""Curves over eps (Goodfellow et al. 2015, figure 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from adv_lightning.evaluation.plots._common import (
    COLOURS,
    DASHES,
    FONT,
    MARKERS,
    WIDTH,
    Array,
    Values,
    array,
    letters,
    number,
    same_length,
    shorten,
    wrap,
)
from adv_lightning.evaluation.plots._mosaic import Mosaic, columns_for, own_range, pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float, float, float, float | None]
_CURVES = 10  # more cannot be told apart


def logit_sweep(
    eps: Values,
    logits: Values,
    images: Values | None,
    image_eps: Values,
    correct: Tensor | Sequence[bool],
    y: int,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw the logits of one example against eps, with a thick line for its class, and some of the inputs below.

    With more than 10 classes, the legend names the true class and the 9 others that have the largest logit at most
    eps, or come closest to it.

    Args:
        eps: Sizes of the step, increasing, [E].
        logits: Logits at each eps, [E, K]; a single logit, [E, 1], means class 1 if it is positive.
        images: Some of the inputs, [M, C, H, W] with C = 1 or 3, or [M, H, W], of any range: each has the smallest
            scale that contains [0, 1] and all its values. None: the inputs are not images, and none are drawn.
        image_eps: The eps of these inputs, increasing, [M].
        correct: Which of these inputs are classified correctly, bool [M].
        y: The true class.
        class_names: A name for each class. None: its number.

    Raises:
        ValueError: a shape does not fit the others, eps does not increase, or `y` is not a class.
    """
    from matplotlib.figure import Figure

    steps, curves = array("eps", eps, "[E]", 1), array("logits", logits, "[E, K]", 2)
    places = array("image_eps", image_eps, "[M]", 1)
    for name, values in (("eps", steps), ("image_eps", places)):
        if not (np.diff(values) > 0).all():
            raise ValueError(f"{name} does not increase: sort it and its values, and remove duplicates")
    same_length(len(steps), "eps", logits=curves)
    classes = max(curves.shape[1], 2)
    if not 0 <= y < classes:
        raise ValueError(f"y={y!r} with logits of shape {list(curves.shape)}: give a class from 0 to {classes - 1}")
    same_length(classes, "classes", class_names=class_names)
    names = [str(k) for k in range(classes)] if class_names is None else [shorten(n, 16) for n in class_names]

    if images is None:
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        _draw_logits(figure.subplots(), steps, curves, y, names)
        return figure
    found = pictures("images", images)
    same_length(len(found), "images", image_eps=places)
    mosaic = Mosaic(
        list(found),
        [own_range(image) for image in found],
        columns_for(len(found)),
        _numbers(places),
        array("correct", correct, "[M]", 1).astype(bool).tolist(),
    )
    caption = wrap(
        "Inputs, each with its \u03b5 above it, row by row from the lowest \u03b5 to the highest. Green frames: "
        "classified correctly.",
        WIDTH - 0.5,
    )
    strip = mosaic.height + 0.5
    figure = Figure(figsize=(WIDTH, 3.6 + strip), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.6, strip])[:, 0]
    _draw_logits(above.subplots(), steps, curves, y, names)
    mosaic.draw(below.subplots())
    below.supxlabel(caption, fontsize=FONT)
    return figure


def _numbers(values: Array) -> list[str]:
    """Write numbers with three digits of the largest, so that rounding errors of 0 read 0."""
    decimals = 2 - math.floor(math.log10(np.abs(values).max() or 1))
    return [number(round(value, decimals) + 0.0, 6) for value in values.tolist()]


def _draw_logits(axis: Axes, eps: Array, logits: Array, y: int, names: Sequence[str]) -> None:
    single = logits.shape[1] == 1
    marker = "o" if len(eps) == 1 else ""
    if single:
        axis.axhline(0, color="0.5", linewidth=1)
        thick = f"{names[1]} above 0,\n{names[0]} below\n(true: {names[y]})"
    else:
        thick = f"{names[y]} (true)"
    others, rest = ([], []) if single else _others(logits, y)
    axis.plot(eps, logits[:, 0 if single else y], "k", marker=marker, linewidth=3.5, label=thick, zorder=3)
    for i, k in enumerate(others):
        colour, dashes = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS)]
        axis.plot(eps, logits[:, k], color=colour, linestyle=dashes, marker=marker, linewidth=1.5, label=names[k])
    if rest:
        lines = axis.plot(eps, logits[:, rest], marker=marker, color="0.8", linewidth=0.7, zorder=1)
        lines[0].set_label(f"{len(rest)} more")
    axis.margins(x=0.01)
    axis.set_xlabel("\u03b5", fontsize=FONT)
    axis.set_ylabel("logit", fontsize=FONT)
    axis.tick_params(labelsize=FONT)
    axis.grid(color="0.9")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=FONT, borderaxespad=0, frameon=False)


def _others(logits: Array, y: int) -> tuple[list[int], list[int]]:
    """Return the classes to name beside y, in order, and the rest."""
    behind = logits - logits.max(axis=1, keepdims=True)
    order = np.lexsort((-behind.mean(axis=0), -(behind == 0).sum(axis=0)))
    others = [k for k in order.tolist() if k != y]
    return sorted(others[: _CURVES - 1]), others[_CURVES - 1 :]


def error_against_eps(curves: Mapping[str, Sequence[Point]]) -> Figure:
    """Draw the error of several attacks against eps, with its interval, and the mean confidence on mistakes below.

    Args:
        curves: For each attack, points (eps, error, lower end of the interval, upper end, mean confidence on mistakes
            or None), rates in [0, 1], in any order. Without any confidence there is no lower panel.

    Raises:
        ValueError: there is no curve, a curve has no points, or a point does not have 5 entries.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    if not curves:
        raise ValueError("curves is empty: give at least one attack")
    for name, points in curves.items():
        if not points or any(len(point) != 5 for point in points):
            raise ValueError(f"curves[{name!r}]: give one or more (eps, error, low, high, confidence or None)")
    confident = any(point[4] is not None for points in curves.values() for point in points)
    figure = Figure(figsize=(WIDTH, 6.4 if confident else 4.0), layout="constrained")
    axes = figure.subplots(2 if confident else 1, 1, sharex=True, squeeze=False)[:, 0]
    for i, (name, points) in enumerate(curves.items()):
        eps, error, low, high, confidence = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        colour = COLOURS[i % len(COLOURS)]
        style: dict[str, Any] = {
            "color": colour,
            "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        axes[0].fill_between(eps, low, high, color=colour, alpha=0.25, linewidth=0)
        axes[0].vlines(eps, low, high, color=colour, linewidth=1)
        axes[0].plot(eps, error, label=shorten(name, 40), **style)
        if confident:
            axes[1].plot(eps, [np.nan if value is None else value for value in confidence], **style)
    for axis, text in zip(axes, ("error", "mean confidence on mistakes"), strict=False):
        axis.set_ylabel(text, fontsize=FONT)
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.tick_params(labelsize=FONT)
        axis.grid(color="0.9")
    axes[-1].set_xlabel("\u03b5", fontsize=FONT)
    columns = letters(WIDTH) // (max(len(shorten(name, 40)) for name in curves) + 8)
    figure.legend(loc="outside upper center", ncols=min(len(curves), columns), fontsize=FONT, frameon=False)
    return figure
