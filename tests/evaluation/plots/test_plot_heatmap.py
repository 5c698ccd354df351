"""A table of shares as a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from adv_lightning.evaluation.plots import heat_map

NAN = float("nan")


def luminance(colour: Any) -> float:
    """WCAG 2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_each_cell_has_its_value() -> None:
    values = [[0.0, 1.0, NAN], [0.014, 0.0996, 0.5]]
    figure = heat_map(values, ["a", "b"], ["x", "y", "z"], "Transfer", "crafted on", "judged on")
    (axis,) = figure.axes
    cells = {text.get_position(): text.get_text() for text in axis.texts}
    assert cells == {(0, 0): "0%", (1, 0): "100%", (2, 0): "\u2013", (0, 1): "1.4%", (1, 1): "10%", (2, 1): "50%"}
    drawn = axis.images[0].get_array()
    assert drawn.mask.tolist() == np.isnan(values).tolist()
    assert drawn.filled(NAN).tolist() == pytest.approx(np.array(values), nan_ok=True)
    assert axis.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["x", "y", "z"]
    assert (figure.get_suptitle(), axis.get_ylabel(), axis.get_xlabel()) == ("Transfer", "crafted on", "judged on")


def test_every_percentage_has_contrast() -> None:
    values = np.linspace(0, 1, 196).reshape(14, 14)
    (axis,) = heat_map(values, [*"abcdefghijklmn"], [*"abcdefghijklmn"]).axes
    assert len(axis.texts) == 196
    for text, value in zip(axis.texts, values.flat, strict=True):
        light, dark = sorted((luminance(text.get_color()), luminance(colormaps["Blues"](value)[:3])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_large_table_has_a_colour_bar_and_few_names() -> None:
    names = [str(i) for i in range(100)]
    axis, scale = heat_map(np.eye(100), names, names).axes
    assert not axis.texts
    assert scale.get_ylim() == (0, 1)
    for ticks, labels in ((axis.get_xticks(), axis.get_xticklabels()), (axis.get_yticks(), axis.get_yticklabels())):
        assert 10 <= len(ticks) <= 50
        assert [label.get_text() for label in labels] == [names[int(k)] for k in ticks]


def test_long_names_keep_both_ends() -> None:
    (axis,) = heat_map([[0.5]], ["maxout_trained_adversarially_seed3"], ["short"]).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["maxout_tr\u2026ly_seed3"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[87.0]], r"values.*\[0, 1\]"),
        ([0.5], r"values.*\[1\].*\[R, C\]"),
        ([[0.5], [0.5]], "rows has 1 entries for 2 rows"),
        ([[0.5, 0.5]], "columns has 1 entries for 2 columns"),
    ],
)
def test_refuses_what_is_not_a_table_of_shares(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        heat_map(values, ["a"], ["x"])
