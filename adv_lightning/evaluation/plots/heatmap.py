"""A table of shares as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from adv_lightning.evaluation.plots._common import FONT, WIDTH, Values, array, name_ticks, same_length, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROOM = 0.42  # inches: the width of "100%"


def heat_map(
    values: Values,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    row_label: str = "",
    column_label: str = "",
) -> Figure:
    """Draw a table of shares, each cell coloured by its value, with its percentage if there is room.

    Args:
        values: [R, C] in [0, 1]; NaN is drawn grey, with a dash.
        rows: A name for each row.
        columns: A name for each column.
        title: Title above the table.
        row_label: Label of the rows.
        column_label: Label of the columns.

    Raises:
        ValueError: `values` has another shape or lies outside [0, 1], or there are not as many names.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    shares = array("values", values, "[R, C]", 2)
    same_length(shares.shape[0], "rows of values", rows=rows)
    same_length(shares.shape[1], "columns of values", columns=columns)
    if ((shares < 0) | (shares > 1)).any():
        raise ValueError("values lie outside [0, 1]: give shares, not percentages")
    cell = min(0.9, 6.2 / max(shares.shape))
    written = cell >= _ROOM
    height = shares.shape[0] * cell + 2.0
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    colours = colormaps["Blues"].with_extremes(bad="0.88")
    image = axis.imshow(shares, cmap=colours, vmin=0, vmax=1)
    if not written:
        bar = figure.colorbar(image, ax=axis, format=PercentFormatter(1, decimals=0), shrink=0.8)
        bar.ax.tick_params(labelsize=FONT)
    for (i, j), share in np.ndenumerate(shares) if written else ():
        colour = _readable(colours(share))
        axis.text(j, i, _percent(share), ha="center", va="center", color=colour, fontsize=FONT)
    name_ticks(axis, "x", columns, cell)
    name_ticks(axis, "y", rows, cell)
    figure.suptitle(wrap(title, WIDTH - 0.5), fontsize=FONT + 1)
    axis.set_ylabel(row_label, fontsize=FONT)
    axis.set_xlabel(column_label, fontsize=FONT)
    return figure


def _percent(share: float) -> str:
    if math.isnan(share):
        return "\u2013"
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def _readable(background: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever has more contrast (WCAG 2: at this relative luminance both have 4.58)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in background[:3]]
    return "black" if np.dot(linear, [0.2126, 0.7152, 0.0722]) > 0.179 else "white"
