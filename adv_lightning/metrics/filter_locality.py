"""How local a filter is."""

from __future__ import annotations

import torch
from torch import Tensor


def locality(weights: Tensor) -> Tensor:
    """Root mean square distance, in pixels, of a filter's energy w^2 from its centre. Smaller is more local.

    It is sqrt(sum w^2 |r - c|^2 / sum w^2) with c = sum w^2 r / sum w^2, summed over pixels and channels. It is 0 for
    a single pixel, sqrt((H^2 + W^2 - 2) / 12) for a constant filter (11.42 for 28 x 28), and NaN if all weights are 0.
    Goodfellow et al. (2015, section 6) find the weights of an adversarially trained network "significantly more
    localized" but give no measure; this one is ours.

    Args:
        weights: Filters, [N, C, H, W] or [N, H, W].

    Returns:
        Tensor: Float64 [N] on the CPU.

    Raises:
        ValueError: weights have another shape.
    """
    if weights.dim() not in (3, 4):
        raise ValueError(f"weights have the shape {list(weights.shape)}: give [N, C, H, W] or [N, H, W]")
    energy = weights.detach().cpu().double() ** 2
    energy = energy.sum(dim=1) if energy.dim() == 4 else energy
    energy = energy / energy.sum(dim=(-2, -1), keepdim=True)
    spread = torch.zeros(len(energy), dtype=torch.float64)
    for other in (-1, -2):
        profile = energy.sum(dim=other)
        r = torch.arange(profile.shape[-1], dtype=torch.float64)
        centre = (profile * r).sum(dim=-1, keepdim=True)
        spread += (profile * (r - centre) ** 2).sum(dim=-1)
    return spread.sqrt()
