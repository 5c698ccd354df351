"""Normalisation as the first layer of the model, so that attacks act on pixels and eps is in their units."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel; [..., C, H, W] to the same shape.

    `mean` and `std` are buffers: they move with the module and are saved in checkpoints.

    Args:
        mean: One value per channel, in the units of x.
        std: One value per channel, in the units of x, greater than 0.

    Raises:
        ValueError: mean and std are empty or differ in length, a value is not finite, or a std is not positive; in
            `forward`, x has another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"Normalize: mean and std need one value per channel each, got {len(mean)} and {len(std)}")
        shape = (-1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.get_default_dtype()).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.get_default_dtype()).view(shape))
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise ValueError(
                "Normalize: every mean must be finite, and every std finite and greater than 0, "
                f"got mean={list(mean)}, std={list(std)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std."""
        channels = self.mean.shape[0]
        if x.ndim < 3 or x.shape[-3] != channels:
            raise ValueError(
                f"Normalize: x must be [..., {channels}, H, W], as mean and std have {channels} values, "
                f"got {list(x.shape)}"
            )
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """Show mean and std."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class Normalized(nn.Module):
    """A backbone with a `Normalize` in front: pixels [B, C, H, W] to the backbone's logits.

    Args:
        backbone: Network that expects normalised input.
        mean: One value per channel, in the units of x.
        std: One value per channel, in the units of x, greater than 0.

    Raises:
        ValueError: as in `Normalize`.
    """

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.backbone(self.normalize(x))
        return logits
