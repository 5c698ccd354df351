"""Many small images in one matplotlib axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adv_lightning.evaluation.plots._common import (
    FONT,
    GREEN,
    WIDTH,
    Array,
    Values,
    array,
    letters,
    same_length,
    shorten,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP = 0.09  # inches between two images
_LINE = 1.35 * FONT / 72  # inches from one line of letters to the next


def pictures(name: str, images: Values) -> Array:
    """Return images as [N, H, W, C] of float64, C = 1 or 3."""
    found = array(name, images, "[N, C, H, W] with C = 1 or 3, or [N, H, W]", 3, 4)
    found = found[:, None] if found.ndim == 3 else found
    if found.shape[1] not in (1, 3):
        raise ValueError(f"{name} has shape {list(found.shape)}: give [N, C, H, W] with C = 1 or 3, or [N, H, W]")
    return found.transpose(0, 2, 3, 1)


def own_range(image: Array) -> tuple[float, float]:
    """Return the smallest range that contains [0, 1] and all finite values of the image."""
    finite = image[np.isfinite(image)]
    return min(0.0, finite.min(initial=0)), max(1.0, finite.max(initial=1))


def columns_for(n: int) -> int:
    """Return the number of columns, at most 10, of a grid about twice as wide as high with few empty cells."""
    rows = math.ceil(n / min(10, math.ceil(math.sqrt(2 * n))))
    return math.ceil(n / rows)


@dataclass(frozen=True)
class Mosaic:
    """Images in rows, with titles above them and green frames around some.

    Args:
        images: Each [H, W, C], C = 1 or 3, all of one size; None leaves a cell empty.
        limits: For each image, the values drawn black and white, or in the first and last of `colours`.
        columns: Number of images in a row.
        titles: One for each image; an empty title is not shown.
        boxed: Which images get a frame.
        colours: Name of the matplotlib colour map for images with one channel.
    """

    images: Sequence[Array | None]
    limits: Sequence[tuple[float, float]]
    columns: int
    titles: Sequence[str] | None = None
    boxed: Sequence[bool] | None = None
    colours: str = "gray"

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise ValueError(f"columns={self.columns!r}: give at least 1")
        same_length(len(self.images), "images", titles=self.titles, boxed=self.boxed)

    @property
    def cell(self) -> float:
        """Width of an image, in inches."""
        return min(2.0, (WIDTH - 0.2) / self.columns - _GAP)

    @property
    def width(self) -> float:
        """Inches."""
        return self.columns * (self.cell + _GAP) + _GAP

    @property
    def height(self) -> float:
        """Inches."""
        return self._tops()[-1]

    def _cell_height(self) -> float:
        height, width = next(image.shape[:2] for image in self.images if image is not None)
        return float(self.cell * height / width)

    def _tops(self) -> list[float]:
        """Return the upper edge of each row of images, and the lower edge of the mosaic, in inches from the top."""
        tops, edge = [], 0.0
        for start in range(0, len(self.images), self.columns):
            titles = (self.titles or [])[start : start + self.columns]
            edge += _GAP + _LINE * max((len(title.splitlines()) for title in titles), default=0)
            tops.append(edge)
            edge += self._cell_height()
        return [*tops, edge + _GAP]

    def draw(self, axis: Axes) -> None:
        """Draw into axes, whose unit becomes an inch."""
        from matplotlib.patches import Rectangle

        tops, cell, height = self._tops(), self.cell, self._cell_height()
        for i, (image, (low, high)) in enumerate(zip(self.images, self.limits, strict=True)):
            if image is None:
                continue
            left, top = _GAP + i % self.columns * (cell + _GAP), tops[i // self.columns]
            shown = image[..., 0] if image.shape[-1] == 1 else ((image - low) / (high - low)).clip(0, 1)
            extent = (left, left + cell, top + height, top)
            axis.imshow(shown, cmap=self.colours, vmin=low, vmax=high, extent=extent)
            framed = self.boxed is not None and bool(self.boxed[i])
            colour, line = (GREEN, 3.5) if framed else ("0.6", 0.5)
            axis.add_patch(Rectangle((left, top), cell, height, fill=False, edgecolor=colour, linewidth=line))
            if self.titles and self.titles[i]:
                title = "\n".join(shorten(line, letters(cell)) for line in self.titles[i].splitlines())
                axis.text(left + cell / 2, top - 0.04, title, ha="center", va="bottom", fontsize=FONT)
        axis.set(xlim=(0, self.width), ylim=(self.height, 0), aspect="equal")
        axis.set_axis_off()

    def figure(self, caption: str) -> Figure:
        """Draw into a new figure, with a caption below."""
        from matplotlib.figure import Figure

        width = max(self.width + 0.1, 4.0)
        text = wrap(caption, width - 0.2)
        figure = Figure(figsize=(width, self.height + _LINE * (len(text.splitlines()) + 1)), layout="constrained")
        self.draw(figure.subplots())
        figure.supxlabel(text, fontsize=FONT)
        return figure
