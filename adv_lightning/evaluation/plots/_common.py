"""What all pictures share: their size, letters, colours, and how values come in."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Tensor | npt.ArrayLike
Array = npt.NDArray[Any]

WIDTH = 8.0  # inches: 800 pixels at the 100 dots an inch of TensorBoard
FONT = 10  # points
_LETTER = 0.62 * FONT / 72  # inches: the mean width of a letter of matplotlib's own typeface, with a margin

# Okabe and Ito's colours, which the colour-blind can tell apart; only the first three bear a meaning.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = [BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9"]
DASHES = ["-", "--", "-."]
MARKERS = "os^Dvp"


def array(name: str, values: Values, shape: str, *dimensions: int) -> Array:
    """Return a float64 array of tensors, arrays or lists, or say which `shape` it should have had."""
    found = torch.as_tensor(values).detach().cpu().double().numpy()
    if found.ndim not in dimensions or not found.size:
        raise ValueError(f"{name} of shape {list(found.shape)}: give {shape}, none of them 0")
    return found


def same_length(expected: int, of: str, **given: Sequence[Any] | Array | None) -> None:
    """Refuse what has not one entry for each."""
    for name, values in given.items():
        if values is not None and len(values) != expected:
            raise ValueError(f"{name} has {len(values)} entries for {expected} {of}: give one for each")


def letters(inches: float) -> int:
    """How many letters stand side by side in that width, at least 1."""
    return max(int(inches / _LETTER), 1)


def shorten(text: str, length: int) -> str:
    """Take letters out of the middle: names of one family differ at their ends."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}\u2026{text[len(text) - tail :]}"


def number(value: float, digits: int = 3) -> str:
    """Write a number, with the sign that matplotlib draws."""
    return f"{value:.{digits}g}".replace("-", "\u2212")


def wrap(text: str, inches: float) -> str:
    """Break a caption into lines of that width."""
    return textwrap.fill(text, letters(inches))


def name_ticks(axis: Axes, which: str, names: Sequence[str], pitch: float) -> None:
    """Name the positions 0, 1, ... that lie `pitch` inches apart: slanted, or only every n-th, where it is narrow."""
    names = [shorten(name, 18) for name in names]
    room = (max(map(len, names)) + 1) * _LETTER if which == "x" else 0.2
    slanted = which == "x" and room > max(pitch, 0.5)
    step = math.ceil((0.2 if slanted else room) / pitch)
    ticks = np.arange(0, len(names), step)
    style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    getattr(axis, f"set_{which}ticks")(ticks, [names[k] for k in ticks], fontsize=FONT, **style)
