"""Images in a grid, some with a frame (Goodfellow et al. 2015, figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from adv_lightning.evaluation.plots._common import Values, array, number
from adv_lightning.evaluation.plots._mosaic import Mosaic, columns_for, own_range, pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(
    images: Values,
    boxed: Tensor | Sequence[bool],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    scale: tuple[float, float] | None = None,
    caption: str = "",
) -> Figure:
    """Draw images in a grid, row by row, with a green frame around some, such as those that fool a network.

    Args:
        images: [N, C, H, W] with C = 1 or 3, or [N, H, W], of any range.
        boxed: Which images get a frame, bool [N].
        titles: One above each image.
        columns: Number of images in a row. None: a grid wider than high.
        scale: The values drawn black and white, for all images. None: each image has its own scale, the smallest that
            contains [0, 1] and all its values.
        caption: Text below, for example what a frame means; the scale is written after it.

    Raises:
        ValueError: `images` has another shape, `boxed` or `titles` another length, `columns` is below 1, or `scale`
            does not increase.
    """
    found = pictures("images", images)
    if scale is not None and not scale[0] < scale[1]:
        raise ValueError(f"scale={scale!r}: give two increasing numbers")
    limits = [own_range(image) if scale is None else scale for image in found]
    said = "Each image has its own scale." if scale is None else f"Scale: {number(scale[0])} to {number(scale[1])}."
    if scale is None and all(limit == (0, 1) for limit in limits):
        said = "Scale: 0 to 1."
    columns = columns_for(len(found)) if columns is None else columns
    framed = array("boxed", boxed, "[N]", 1).astype(bool).tolist()
    mosaic = Mosaic(list(found), limits, columns, titles, framed)
    return mosaic.figure(f"{caption} {said}".strip())
