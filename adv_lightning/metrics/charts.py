"""What TensorBoard's tab of custom scalars shows: the clean figure and the one under attack in one chart."""

from __future__ import annotations

from typing import Any

CHARTS: dict[str, dict[str, list[Any]]] = {
    "clean and under attack": {
        "validation error": ["Multiline", ["^val/error$", "^val/adv_error$"]],
        "training loss": ["Multiline", ["^train/clean_loss$", "^train/adv_loss$"]],
    }
}
"""Title of a group -> title of a chart -> its kind, and a pattern for the name of each curve."""
