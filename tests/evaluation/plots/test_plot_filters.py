"""Weights as images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adv_lightning.evaluation.plots import filters, weights_and_sign


def shown(axis: Any) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in axis.images]


def test_filters_share_one_symmetric_scale() -> None:
    weights = torch.randn(7, 1, 5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (axis,) = filters(weights, [str(i) for i in range(7)], columns=3).axes
    assert len(axis.images) == 7
    for image, weight in zip(shown(axis), weights.detach().double().numpy(), strict=True):
        assert (image == weight[0]).all()
    limits = {image.get_clim() for image in axis.images}
    assert len(limits) == 1
    ((low, high),) = limits
    assert low == -high
    assert high == pytest.approx(np.quantile(weights.detach().double().abs().numpy(), 0.995))
    assert [text.get_text() for text in axis.texts] == [str(i) for i in range(7)]
    assert len({image.get_extent()[0] for image in axis.images}) == 3  # columns
    extents = [image.get_extent() for image in axis.images]
    for left, right, bottom, top in extents:
        assert (bottom - top) / (right - left) == pytest.approx(5 / 4)
    assert extents[3][0] == extents[0][0]
    assert extents[3][3] > extents[0][2]  # below, for y falls


def test_colour_filters_are_grey_at_zero() -> None:
    weights = np.zeros((2, 3, 2, 2))
    weights[1, 0, 0, 0], weights[1, 2, 1, 1] = 4, -2
    (axis,) = filters(weights).axes
    grey, coloured = shown(axis)
    assert (grey == 0.5).all()
    assert coloured[0, 0].tolist() == [1, 0.5, 0.5]
    assert coloured[0, 1].tolist() == [0.5, 0.5, 0.5]
    assert coloured[1, 1, 2] < 0.5
    assert (coloured[1, 1, :2] == 0.5).all()


def test_caption_says_what_is_beyond_the_scale() -> None:
    weights = torch.ones(1, 20, 20)
    figure = filters(weights)
    assert figure.get_supxlabel() == "Red is above zero, blue below; scale \u00b11."
    weights[0, 0, 0] = 9
    assert "0.2% of the weights" in filters(weights).get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_constant_filters_are_drawn(value: float) -> None:
    (axis,) = filters(torch.full((1, 3, 3), value)).axes
    assert axis.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("classes", [1, 10, 13])
def test_sign_is_below_its_weights(classes: int) -> None:
    weights = np.random.default_rng(0).normal(size=(classes, 3, 4))
    weights[0, 0, 0] = 0
    (axis,) = weights_and_sign(weights, [f"c{k}" for k in range(classes)]).axes
    above = {tuple(image.get_extent()[:2]): [] for image in axis.images}
    for image in sorted(axis.images, key=lambda image: image.get_extent()[3]):
        above[tuple(image.get_extent()[:2])].append(np.asarray(image.get_array()))
    assert len(axis.images) == 2 * classes
    columns = list(above.values())  # each from above: weights, sign, weights, sign
    for k in range(classes):
        pair = columns[k % 10][2 * (k // 10) :][:2]
        assert (pair[0] == weights[k]).all()
        assert (pair[1] == np.sign(weights[k])).all()
    assert {text.get_text() for text in axis.texts} == {f"c{k}" for k in range(classes)}


@pytest.mark.parametrize("draw", [filters, weights_and_sign])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.zeros(10, 784),), r"weights.*\[10, 784\].*\[N, C, H, W\] with C = 1 or 3, or \[N, H, W\]"),
        ((torch.zeros(10, 2, 5, 5),), r"weights.*\[10, 2, 5, 5\].*\[N, C, H, W\] with C = 1 or 3"),
        ((torch.zeros(0, 5, 5),), r"weights.*\[0, 5, 5\]"),
        ((torch.zeros(3, 5, 5), ["a", "b"]), r"titles has 2 entries for 3 (images|classes)"),
    ],
)
def test_refuses_wrong_shapes(draw: Any, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(*arguments)


def test_refuses_no_columns() -> None:
    with pytest.raises(ValueError, match="columns=0"):
        filters(torch.zeros(3, 5, 5), columns=0)
