"""What all pictures share: sizes, fonts, colours, and the conversion of values."""

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
_LETTER = 0.62 * FONT / 72  # inches: the mean width of a letter in matplotlib's default font, with a margin

# Okabe and Ito's colours, which colour-blind people can tell apart; only the first three have a meaning.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLOURS = [BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9"]
DASHES = ["-", "--", "-."]
MARKERS = "os^Dvp"


def array(name: str, values: Values, shape: str, *dimensions: int) -> Array:
    """Convert a tensor, array or list to a float64 array, or raise ValueError that names the expected `shape`."""
    found = torch.as_tensor(values).detach().cpu().double().numpy()
    if found.ndim not in dimensions or not found.size:
        raise ValueError(f"{name} has shape {list(found.shape)}: give {shape}, without a dimension of 0")
    return found


def same_length(expected: int, of: str, **given: Sequence[Any] | Array | None) -> None:
    """Raise ValueError unless each of `given` has the expected number of entries."""
    for name, values in given.items():
        if values is not None and len(values) != expected:
            raise ValueError(f"{name} has {len(values)} entries for {expected} {of}: give one for each")


def letters(inches: float) -> int:
    """Return the number of letters that fit into a width, at least 1."""
    return max(int(inches / _LETTER), 1)


def shorten(text: str, length: int) -> str:
    """Shorten a text in the middle, since related names differ at their ends."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}\u2026{text[len(text) - tail :]}"


def number(value: float, digits: int = 3) -> str:
    """Write a number with the minus sign that matplotlib uses."""
    return f"{value:.{digits}g}".replace("-", "\u2212")


def wrap(text: str, inches: float) -> str:
    """Break a caption into lines of a width."""
    return textwrap.fill(text, letters(inches))


def name_ticks(axis: Axes, which: str, names: Sequence[str], pitch: float) -> None:
    """Label the positions 0, 1, ..., `pitch` inches apart: slanted, or only every n-th, if there is little room."""
    names = [shorten(name, 18) for name in names]
    room = (max(map(len, names)) + 1) * _LETTER if which == "x" else 0.2
    slanted = which == "x" and room > max(pitch, 0.5)
    step = math.ceil((0.2 if slanted else room) / pitch)
    ticks = np.arange(0, len(names), step)
    style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    getattr(axis, f"set_{which}ticks")(ticks, [names[k] for k in ticks], fontsize=FONT, **style)
