"""Clean images, their perturbation, and the images under attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LARGE, _SMALL = 22, 14
"""Font sizes, in points, for short and long names of classes."""
_SHORT = 7
"""So many letters of the large size fit a column."""


def triptych(
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    clean: list[tuple[int, float]],
    attacked: list[tuple[int, float]],
    class_names: list[str] | None = None,
) -> Figure:
    """Draw a column for each image: clean, the perturbation on its own scale with its largest value, under attack.

    A wrong prediction is red. The figure is wide and its letters are large, because TensorBoard's cards are small.

    Args:
        x: Clean images, [N, C, H, W], C = 1 or 3, shown on the scale [0, 1].
        x_adv: The same images under attack.
        y: Their classes, int64 [N].
        clean: Predicted class of each clean image, below 0 for none, and its probability.
        attacked: The same for the images under attack.
        class_names: A name for each class. None: its number.
    """
    from matplotlib.figure import Figure  # slow to import, and needed only here

    figure = Figure(figsize=(0.5 + 1.25 * len(x), 6.0), layout="constrained")
    axes = figure.subplots(3, len(x), squeeze=False)

    def name(k: int) -> str:
        if k < 0:
            return "not finite"
        return str(k) if class_names is None else class_names[k]

    shown = {name(int(k)) for k in (*y.tolist(), *(k for k, _ in (*clean, *attacked)))}
    size = _LARGE if max(map(len, shown)) <= _SHORT else _SMALL
    noise = x_adv.float() - x.float()
    span = 2 * max(noise.abs().max().item(), 1e-12)
    for column in range(len(x)):
        label, change = int(y[column]), noise[column]
        (k, p), (k_adv, p_adv) = clean[column], attacked[column]
        panels = (
            (x[column], f"{name(k)}\n{p:.0%}", k == label),
            (change / span + 0.5, f"\u00b1{change.abs().max().item():.2g}", True),
            (x_adv[column], f"{name(k_adv)}\n{p_adv:.0%}", k_adv == label),
        )
        for axis, (image, title, right) in zip(axes[:, column], panels, strict=True):
            pixels = torch.clamp(image.detach().float().cpu(), 0, 1).permute(1, 2, 0).numpy()
            axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=size, color="black" if right else "firebrick")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[-1, column].set_xlabel(f"true\n{name(label)}", fontsize=size)
    for axis, text in zip(axes[:, 0], ("clean", "added", "attack"), strict=True):
        axis.set_ylabel(text, fontsize=_LARGE)
    return figure
