"""Every picture is readable, for few and many classes, small and large images."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from adv_lightning.evaluation import plots

LONG = [f"network_of_a_long_name_trained_adversarially_seed{i}" for i in range(100)]
RNG = np.random.default_rng(0)


def images(n: int, channels: int, size: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(0.5, 0.5, (n, channels, size, size)))


def sweep(classes: int, n: int, names: list[str] | None = None) -> Figure:
    eps = torch.linspace(-0.5, 0.5, 21)
    logits = eps[:, None] * torch.from_numpy(RNG.normal(size=max(classes, 1)))
    places = torch.linspace(-0.5, 0.5, n)
    return plots.logit_sweep(eps, logits, images(n, 1, 8), places, torch.arange(n) % 2 == 0, 1, names)


def curves(n: int) -> dict[str, list[tuple[float, float, float, float, float | None]]]:
    return {LONG[i]: [(e, e, e - 0.02, e + 0.02, None if e == 0 else 1 - e) for e in (0, 0.3, 1)] for i in range(n)}


PICTURES: dict[str, Callable[[], Figure]] = {
    "filters 1": lambda: plots.filters(images(1, 3, 8), ["one"]),
    "filters 36": lambda: plots.filters(images(36, 1, 8), LONG[:36]),
    "filters in 24 columns": lambda: plots.filters(images(36, 1, 8), LONG[:36], columns=24),
    "weights 1": lambda: plots.weights_and_sign(images(1, 1, 28)),
    "weights 25": lambda: plots.weights_and_sign(images(25, 3, 8), LONG[:25]),
    "grid 36": lambda: plots.image_grid(
        images(36, 3, 224)[:, :, ::7],
        [i % 2 == 0 for i in range(36)],
        [f"{name}\n99%" for name in LONG[:36]],
        caption=LONG[0],
    ),
    "grid 1": lambda: plots.image_grid(images(1, 1, 8), [True], LONG[:1], scale=(-1, 2)),
    "sweep 1 logit": lambda: sweep(1, 1, ["three", "seven"]),
    "sweep 2": lambda: sweep(2, 7),
    "sweep 10": lambda: sweep(10, 36),
    "sweep 100": lambda: sweep(100, 25, LONG),
    "error 1": lambda: plots.error_against_eps(curves(1)),
    "error 12": lambda: plots.error_against_eps(curves(12)),
    "heat 1": lambda: plots.heat_map([[0.3]], LONG[:1], LONG[:1], "A title that is rather long " * 5),
    "heat 10": lambda: plots.heat_map(np.eye(10), LONG[:10], LONG[:10], "Transfer", "crafted on", "judged on"),
    "heat 20": lambda: plots.heat_map(np.ones((20, 20)), LONG[:20], LONG[:20]),
    "heat 100": lambda: plots.heat_map(np.eye(100), LONG, [str(i) for i in range(100)]),
    "confidence 1": lambda: plots.confidence_histogram({"clean": [[0, 3, 90], [1, 2, 3]]}),
    "confidence 3": lambda: plots.confidence_histogram({name: [[0, 3, 9000], [1, 2, 3]] for name in LONG[:3]}),
    "classes 2": lambda: plots.class_bars({"clean": [2, 3]}, ["three", "seven"]),
    "classes 10": lambda: plots.class_bars({name: range(10) for name in LONG[:3]}, LONG[:10]),
    "classes 100": lambda: plots.class_bars({"clean": range(100)}),
    "classes 100 of long names": lambda: plots.class_bars({"clean": range(100)}, LONG),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_legible(name: str, legible: Callable[[Figure], list[str]]) -> None:
    figure = PICTURES[name]()
    assert legible(figure)


@pytest.mark.parametrize("path", sorted(Path(plots.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_imports_matplotlib_late_and_without_pyplot(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "pyplot" not in text
    roots = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert roots <= {
        "__future__",
        "adv_lightning",
        "collections",
        "dataclasses",
        "math",
        "numpy",
        "textwrap",
        "torch",
        "typing",
    }
