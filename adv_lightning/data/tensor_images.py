"""A labelled set of images in memory."""

import copy
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

BatchTransform = Callable[[Tensor, torch.Generator], Tensor]
"""A random change of a whole batch: (x [B, C, H, W] in [0, 1], generator) -> x."""


class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels in two tensors, read in whole batches.

    `__getitems__(indices)` returns x, float32 [B, C, H, W] in [0, 1], and y, int64 [B]. Both are copies, so changing a
    batch never changes the set.

    Args:
        images: uint8 or float32 [N, C, H, W], with values in [0, scale].
        labels: int64 [N], from 0.
        scale: The stored value that stands for 1, above 0.
        num_classes: If given, every label must be below it.
        transform: Random change of each batch. It draws from `self.generator`, which a `BatchLoader` seeds before each
            batch.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: the set is empty, shapes do not match, or a value or label is out of range.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        scale: float = 255.0,
        num_classes: int | None = None,
        transform: BatchTransform | None = None,
    ) -> None:
        _check_images(images, scale)
        _check_labels(labels, len(images), num_classes)
        self.images = images
        self.labels = labels
        self.scale = scale
        self.transform = transform
        self.generator = None if transform is None else torch.Generator()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):  # an IndexError ends a plain for loop
            raise IndexError(f"index {index} is out of range for {len(self)} images")
        x, y = self.__getitems__([index % len(self)])
        return x[0], y[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(indices, device=self.images.device)
        x = self.images.index_select(0, index).to(torch.float32).div_(self.scale)
        if self.transform is not None and self.generator is not None:
            x = self.transform(x, self.generator)
        return x, self.labels.index_select(0, index)

    def to(self, device: torch.device | str) -> Self:
        """Return the set with its tensors on `device`. Nothing is copied if they are there already."""
        moved = copy.copy(self)
        moved.images, moved.labels = self.images.to(device), self.labels.to(device)
        return moved


def _check_images(images: Tensor, scale: float) -> None:
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"images must be uint8 or float32, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"images must have the shape [N, C, H, W], got {list(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"the set is empty: images have the shape {list(images.shape)}")
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    low, high = (float(value) for value in images.aminmax())
    if not 0 <= low <= high <= scale:
        raise ValueError(
            f"image values must lie in [0, {scale:g}], got [{low:g}, {high:g}]: "
            "set scale to the value that stands for 1"
        )


def _check_labels(labels: Tensor, number: int, num_classes: int | None) -> None:
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    if labels.shape != (number,):
        raise ValueError(f"{number} images need labels with the shape [{number}], got {list(labels.shape)}")
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or (num_classes is not None and high >= num_classes):
        allowed = "0 or more" if num_classes is None else f"from 0 to {num_classes - 1}"
        raise ValueError(f"labels must be {allowed}, got {low} to {high}")
