"""Images in a grid, some with a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from adv_lightning.evaluation.plots import image_grid
from adv_lightning.evaluation.plots._common import GREEN


def framed(axis: Any) -> list[bool]:
    """For each image, whether its frame is thick and green; also checks that frames surround their images."""
    for image, frame in zip(axis.images, axis.patches, strict=True):
        left, right, bottom, top = image.get_extent()
        assert (frame.get_x(), frame.get_y()) == (left, top)
        assert (frame.get_width(), frame.get_height()) == pytest.approx((right - left, bottom - top))
    return [to_hex(p.get_edgecolor()) == GREEN.lower() and p.get_linewidth() > 2 for p in axis.patches]


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_and_scales(channels: int) -> None:
    images = torch.randn(5, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    images[4] = 0.25
    boxed = torch.tensor([True, False, False, True, False])
    figure = image_grid(images, boxed, ["a", "", "c", "d", "e"], caption="Framed: fooled.")
    (axis,) = figure.axes
    assert framed(axis) == boxed.tolist()
    assert [text.get_text() for text in axis.texts] == ["a", "c", "d", "e"]
    assert figure.get_supxlabel().replace("\n", " ") == "Framed: fooled. Each image has its own scale."
    for picture, image in zip(axis.images, images.double(), strict=True):
        low, high = min(image.min().item(), 0), max(image.max().item(), 1)
        found = np.asarray(picture.get_array())
        if channels == 1:
            assert (found == image[0].numpy()).all()
            assert picture.get_clim() == (low, high)
        else:
            assert np.allclose(found, ((image - low) / (high - low)).permute(1, 2, 0).numpy(), atol=1e-12)


def test_given_scale_holds_for_all() -> None:
    images = [[[-3.0, 0.0], [1.0, 2.0]]] * 2
    figure = image_grid(images, [False, True], scale=(-1, 2))
    assert [image.get_clim() for image in figure.axes[0].images] == [(-1, 2)] * 2
    assert figure.get_supxlabel() == "Scale: \u22121 to 2."
    assert image_grid(torch.rand(2, 4, 4), [True, True]).get_supxlabel() == "Scale: 0 to 1."


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (3, 3), (6, 3), (10, 5), (36, 9), (100, 10)])
def test_grid_is_wide(n: int, columns: int) -> None:
    (axis,) = image_grid(torch.zeros(n, 2, 2), torch.zeros(n)).axes
    assert len({image.get_extent()[0] for image in axis.images}) == columns


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"boxed": [True]}, "boxed has 1 entries for 2 images"),
        ({"boxed": [[True, False]]}, r"boxed.*\[1, 2\].*\[N\]"),
        ({"titles": ["a"]}, "titles has 1 entries for 2 images"),
        ({"scale": (1, 1)}, r"scale=\(1, 1\)"),
        ({"images": torch.zeros(2, 4)}, r"images.*\[2, 4\]"),
    ],
)
def test_refuses_wrong_shapes(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        image_grid(**{"images": torch.zeros(2, 4, 4), "boxed": [True, False]} | arguments)
