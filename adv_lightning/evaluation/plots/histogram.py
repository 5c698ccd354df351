"""Histograms of confidences and of classes, one panel for each attack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from adv_lightning.evaluation.plots._common import (
    BLUE,
    FONT,
    VERMILION,
    WIDTH,
    Values,
    array,
    letters,
    name_ticks,
    same_length,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def confidence_histogram(counts: Mapping[str, Values]) -> Figure:
    """Draw the confidence of correct and of wrong predictions, one panel for each attack.

    All panels share the axis of counts, which is logarithmic if the largest count is over 50 times the smallest count
    above 0.

    Args:
        counts: For each attack, ints [2, bins]: numbers of examples by their largest probability, in bins of equal
            width from 0 to 1, first the correctly classified ones, then the misclassified ones.

    Raises:
        ValueError: there is no attack, or the counts have another shape.
    """
    tables = {name: array(f"counts[{name!r}]", table, "[2, bins]", 2) for name, table in counts.items()}
    for name, table in tables.items():
        if len(table) != 2:
            raise ValueError(f"counts[{name!r}] has shape {list(table.shape)}: give [2, bins], right and wrong")
    texts = {name: f"{table[1].sum():,.0f} of {table.sum():,.0f} wrong" for name, table in tables.items()}
    figure, axes = _panels(texts, 3, 2.3)
    seen = np.concatenate([table[table > 0] for table in tables.values()])
    for axis, table in zip(axes, tables.values(), strict=True):
        edges = np.linspace(0, 1, table.shape[1] + 1)
        axis.stairs(table[0], edges, fill=True, color=BLUE, alpha=0.5, label="right")
        axis.stairs(table[1], edges, color=VERMILION, linewidth=2, label="wrong")
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    if seen.size and seen.max() > 50 * seen.min():
        axes[0].set_yscale("log")
        axes[0].set_ylim(0.5, 2 * seen.max())
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=FONT, frameon=False
    )
    figure.supxlabel("largest probability", fontsize=FONT)
    figure.supylabel("examples", fontsize=FONT)
    return figure


def class_bars(counts: Mapping[str, Values], class_names: Sequence[str] | None = None) -> Figure:
    """Draw the share of the mistakes that each class gets, one panel for each attack; a dashed line is at 1/K.

    Args:
        counts: For each attack, ints [K]: number of mistakes, or of rubbish inputs, taken for each class. All have
            the same K.
        class_names: A name for each class. None: its number.

    Raises:
        ValueError: there is no attack, the counts have another shape, or `class_names` another length.
    """
    tables = {name: array(f"counts[{name!r}]", table, "[K]", 1) for name, table in counts.items()}
    classes = len(next(iter(tables.values()), ()))
    same_length(classes, "classes", class_names=class_names, **{f"counts[{n!r}]": t for n, t in tables.items()})
    names = [str(k) for k in range(classes)] if class_names is None else class_names
    figure, axes = _panels({name: f"n = {table.sum():,.0f}" for name, table in tables.items()}, 1, 1.6)
    for axis, table in zip(axes, tables.values(), strict=True):
        axis.bar(np.arange(classes), table / max(table.sum(), 1), color=BLUE)
        axis.axhline(1 / classes, color="black", linestyle="--", linewidth=1)
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
        axis.set_xlim(-0.6, classes - 0.4)
    name_ticks(axes[-1], "x", names, (WIDTH - 0.9) / classes)
    figure.supylabel("share taken for the class", fontsize=FONT)
    return figure


def _panels(texts: Mapping[str, str], most: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with one titled panel for each text, at most `most` side by side."""
    from matplotlib.figure import Figure

    if not texts:
        raise ValueError("counts is empty: give at least one attack")
    rows = math.ceil(len(texts) / most)
    columns = math.ceil(len(texts) / rows)
    figure = Figure(figsize=(WIDTH, height * rows + 1), layout="constrained")
    grid: list[Axes] = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axis in grid[len(texts) :]:
        axis.remove()
    for i, (axis, (name, text)) in enumerate(zip(grid, texts.items(), strict=False)):
        axis.set_title(f"{shorten(name, letters(WIDTH / columns - 0.8))}\n{text}", fontsize=FONT)
        axis.tick_params(labelsize=FONT, labelbottom=i + columns >= len(texts))
    return figure, grid[: len(texts)]
