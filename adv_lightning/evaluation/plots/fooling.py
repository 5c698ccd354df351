"""Images in a grid, some of them framed (Goodfellow et al. 2015, figure 5)."""

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
        boxed: Which are framed, bool [N].
        titles: One above each image.
        columns: Images in a row; by default a grid that is wider than high.
        scale: The values drawn black and white, for all images. By default each image has a scale of its own, the
            smallest that holds [0, 1] and all its values.
        caption: What a frame means, for instance; the scale is said after it.

    Raises:
        ValueError: images has another shape, boxed or titles is not one for each, columns is below 1, or scale does
            not rise.
    """
    found = pictures("images", images)
    if scale is not None and not scale[0] < scale[1]:
        raise ValueError(f"scale={scale!r}: give two numbers, the first below the second")
    limits = [own_range(image) if scale is None else scale for image in found]
    said = "Each on a scale of its own." if scale is None else f"Scale: {number(scale[0])} to {number(scale[1])}."
    if scale is None and all(limit == (0, 1) for limit in limits):
        said = "Scale: 0 to 1."
    columns = columns_for(len(found)) if columns is None else columns
    framed = array("boxed", boxed, "[N]", 1).astype(bool).tolist()
    mosaic = Mosaic(list(found), limits, columns, titles, framed)
    return mosaic.figure(f"{caption} {said}".strip())
