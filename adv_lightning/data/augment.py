"""Random crops and flips of whole batches."""

import torch
from torch import Tensor


class RandomCropFlip:
    """Shift each image by up to `padding` pixels, filling with black, and mirror half of the images.

    Equivalent to torchvision's `RandomCrop(size, padding)` and `RandomHorizontalFlip()` on each image, in one gather
    for the whole batch.

    Args:
        padding: Largest shift in pixels, in each of the four directions.
        flip: Mirror with probability 1/2.

    Raises:
        ValueError: padding is negative.
    """

    def __init__(self, padding: int = 4, flip: bool = True) -> None:
        if padding < 0:
            raise ValueError(f"padding must be 0 or more, got {padding}")
        self.padding = padding
        self.flip = flip

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a changed copy of x, [B, C, H, W]. Draws come from `generator`, which is on the CPU."""
        number, channels, height, width = x.shape
        shift = torch.randint(2 * self.padding + 1, (number, 2), generator=generator)
        rows = shift[:, :1] + torch.arange(height)
        columns = shift[:, 1:] + torch.arange(width)
        if self.flip:
            mirrored = torch.rand(number, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = torch.nn.functional.pad(x, [self.padding] * 4)
        pixels = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
        chosen = pixels.to(x.device)[:, None].expand(-1, channels, -1)
        return padded.flatten(2).gather(2, chosen).view_as(x)
