"""Counts of confidences and of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adv_lightning.evaluation.plots import class_bars, confidence_histogram


def test_one_panel_for_each_attack() -> None:
    counts = {"clean": torch.tensor([[0, 1, 20], [2, 0, 1]]), "FGSM": [[0, 0, 3], [1, 2, 9]]}
    figure = confidence_histogram(counts)
    assert [axis.get_title() for axis in figure.axes] == ["clean\n3 of 24 wrong", "FGSM\n12 of 15 wrong"]
    for axis, table in zip(figure.axes, counts.values(), strict=True):
        right, wrong = (patch.get_data() for patch in axis.patches)
        assert right.values.tolist() == list(map(float, table[0]))
        assert wrong.values.tolist() == list(map(float, table[1]))
        assert np.allclose(right.edges, [0, 1 / 3, 2 / 3, 1])
        assert axis.get_yscale() == "linear"
    assert [text.get_text() for text in figure.legends[0].texts] == ["right", "wrong"]


def test_wide_range_of_counts_is_logarithmic() -> None:
    figure = confidence_histogram({"clean": [[1, 51], [0, 0]], "FGSM": [[2, 2], [1, 1]], "PGD": [[0, 0], [0, 0]]})
    assert [axis.get_yscale() for axis in figure.axes] == ["log"] * 3
    assert all(low < 1 and high > 51 for low, high in (axis.get_ylim() for axis in figure.axes))


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3)])
def test_panels_are_spread_evenly(n: int, columns: int) -> None:
    figure = confidence_histogram({str(i): [[1], [1]] for i in range(n)})
    assert len(figure.axes) == n
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_bars_are_shares_of_each_panel() -> None:
    counts = {"noise": torch.tensor([1, 0, 3]), "steps": [0, 0, 0]}
    figure = class_bars(counts, ["a", "b", "c"])
    assert [axis.get_title() for axis in figure.axes] == ["noise\nn = 4", "steps\nn = 0"]
    heights = [[bar.get_height() for bar in axis.patches] for axis in figure.axes]
    assert heights == [[0.25, 0, 0.75], [0, 0, 0]]
    for axis in figure.axes:
        assert axis.lines[0].get_ydata() == pytest.approx([1 / 3, 1 / 3])
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("draw", "arguments", "words"),
    [
        (confidence_histogram, ({},), "counts is empty"),
        (class_bars, ({},), "counts is empty"),
        (confidence_histogram, ({"FGSM": [[1, 2]]},), r"counts\['FGSM'\].*\[1, 2\].*\[2, bins\]"),
        (confidence_histogram, ({"FGSM": [1, 2]},), r"counts\['FGSM'\].*\[2\].*\[2, bins\]"),
        (class_bars, ({"FGSM": [[1, 2]]},), r"counts\['FGSM'\].*\[1, 2\].*\[K\]"),
        (class_bars, ({"a": [1, 2], "b": [1]},), r"counts\['b'\] has 1 entries for 2 classes"),
        (class_bars, ({"a": [1, 2]}, ["x"]), "class_names has 1 entries for 2 classes"),
    ],
)
def test_refuses_wrong_shapes(draw: Any, arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(*arguments)
