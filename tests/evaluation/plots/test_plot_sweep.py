"""Curves over eps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from adv_lightning.evaluation.plots import error_against_eps, logit_sweep
from adv_lightning.evaluation.plots._common import GREEN


def given(classes: int = 3, points: int = 9, images: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(classes)
    return {
        "eps": torch.linspace(-2, 2, points),
        "logits": torch.randn(points, classes, generator=generator),
        "images": torch.randn(images, 1, 5, 5, generator=generator),
        "image_eps": torch.linspace(-1.5, 1.5, images),
        "correct": torch.arange(images) % 2 == 1,
        "y": 1,
    }


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_every_class_is_a_curve(classes: int) -> None:
    arguments = given(classes)
    names = [f"class {k}" for k in range(classes)]
    axis, strip = logit_sweep(**arguments, class_names=names).axes
    lines = {line.get_label(): line for line in axis.lines}
    assert set(lines) == {"class 1 (true)", *names} - {"class 1"}
    for k, name in enumerate(names):
        line = lines["class 1 (true)" if k == 1 else name]
        assert (line.get_xdata() == arguments["eps"].double().numpy()).all()
        assert (line.get_ydata() == arguments["logits"][:, k].double().numpy()).all()
    thick = lines.pop("class 1 (true)").get_linewidth()
    assert all(line.get_linewidth() < thick / 2 for line in lines.values())
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == classes - 1
    assert axis.get_legend().get_texts()[0].get_text() == "class 1 (true)"
    assert len(strip.images) == 4


def test_inputs_are_in_order_with_eps_and_frames() -> None:
    arguments = given(images=7)
    figure = logit_sweep(**arguments)
    strip = figure.axes[1]
    assert [text.get_text() for text in strip.texts] == ["\u22121.5", "\u22121", "\u22120.5", "0", "0.5", "1", "1.5"]
    for image, pixels in zip(strip.images, arguments["images"].double(), strict=True):
        assert (np.asarray(image.get_array()) == pixels[0].numpy()).all()
        assert image.get_clim() == (min(pixels.min().item(), 0), max(pixels.max().item(), 1))
    places = [(image.get_extent()[3], image.get_extent()[0]) for image in strip.images]
    assert places == sorted(places)  # row by row
    frames = [to_hex(patch.get_edgecolor()) == GREEN.lower() for patch in strip.patches]
    assert frames == arguments["correct"].tolist()
    (below,) = (part for part in figure.subfigs if part.get_supxlabel())
    caption = below.get_supxlabel().replace("\n", " ")
    assert "from the lowest \u03b5 to the highest" in caption
    assert "Green frames: classified correctly" in caption


def test_eps_near_0_reads_0() -> None:
    arguments = given(images=3) | {"image_eps": [-0.007, 1e-9, 0.007]}
    assert [text.get_text() for text in logit_sweep(**arguments).axes[1].texts] == ["\u22120.007", "0", "0.007"]


def test_legend_names_the_leading_classes() -> None:
    arguments = given(100)
    arguments["logits"][:] = -torch.arange(100.0)  # class 0 leads, 1 is next, ...
    arguments["logits"][0, 50] = 9  # and 50 at one eps
    axis = logit_sweep(**arguments | {"y": 99}).axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["99 (true)", *"01234567", "50", "90 more"]
    assert len(axis.lines) == 100


def test_single_logit_means_class_1() -> None:
    arguments = given(1) | {"y": 0}
    axis = logit_sweep(**arguments, class_names=["three", "seven"]).axes[0]
    zero, curve = axis.lines
    assert list(zero.get_ydata()) == [0, 0]
    assert (curve.get_ydata() == arguments["logits"][:, 0].double().numpy()).all()
    assert curve.get_label() == "seven above 0,\nthree below\n(true: three)"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"eps": torch.zeros(9)}, "eps does not increase"),
        ({"image_eps": [0, 2, 1, 3]}, "image_eps does not increase"),
        ({"logits": torch.zeros(8, 3)}, "logits has 8 entries for 9 eps"),
        ({"image_eps": [1, 2]}, "image_eps has 2 entries for 4 images"),
        ({"correct": [True]}, "boxed has 1 entries for 4 images"),
        ({"y": 3}, r"y=3.*\[9, 3\].*0 to 2"),
        ({"class_names": ["a"]}, "class_names has 1 entries for 3 classes"),
        ({"images": torch.zeros(4, 25)}, r"images.*\[4, 25\]"),
    ],
)
def test_refuses_wrong_shapes(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        logit_sweep(**given() | wrong)


def test_error_and_confidence_against_eps() -> None:
    points = [(0.2, 0.5, 0.4, 0.6, 0.9), (0.0, 0.1, 0.05, 0.2, None), (0.1, 0.3, 0.2, 0.35, 0.8)]
    error, confidence = error_against_eps({"FGSM": points, "PGD": [(0.1, 0.4, 0.3, 0.5, 0.7)]}).axes
    curve, single = error.lines
    assert np.array_equal(curve.get_xydata(), [[0, 0.1], [0.1, 0.3], [0.2, 0.5]])
    assert np.array_equal(single.get_xydata(), [[0.1, 0.4]])
    assert np.array_equal(confidence.lines[0].get_xydata(), [[0, float("nan")], [0.1, 0.8], [0.2, 0.9]], equal_nan=True)
    band, bars, _, single_bar = error.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners >= {(0, 0.05), (0, 0.2), (0.1, 0.2), (0.1, 0.35), (0.2, 0.4), (0.2, 0.6)}
    ends = [path.vertices.tolist() for path in bars.get_paths()]
    assert ends == [[[0, 0.05], [0, 0.2]], [[0.1, 0.2], [0.1, 0.35]], [[0.2, 0.4], [0.2, 0.6]]]
    assert [path.vertices.tolist() for path in single_bar.get_paths()] == [[[0.1, 0.3], [0.1, 0.5]]]
    styles = {(line.get_color(), line.get_marker()) for line in (*error.lines, *confidence.lines)}
    assert len(styles) == 2


def test_attacks_differ_in_style_and_confidence_is_optional() -> None:
    figure = error_against_eps({f"attack {i}": [(0.1, 0.5, 0.4, 0.6, None)] for i in range(12)})
    (axis,) = figure.axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 12
    assert [text.get_text() for text in figure.legends[0].texts] == [f"attack {i}" for i in range(12)]


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ({}, "curves is empty"),
        ({"FGSM": []}, r"curves\['FGSM'\].*\(eps, error, low, high, confidence or None\)"),
        ({"FGSM": [(0.1, 0.5, 0.4, 0.6)]}, r"curves\['FGSM'\]"),
    ],
)
def test_refuses_curves_without_points(curves: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        error_against_eps(curves)
