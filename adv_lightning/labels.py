"""What class labels and the logits of classes must be."""

from __future__ import annotations

import torch
from torch import Tensor


def check_classes(logits: Tensor) -> None:
    """Raise ValueError unless logits are [B, K] of K >= 2 classes."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"logits of shape {list(logits.shape)} are no [B, K] of K >= 2 classes: let the backbone give a logit for "
            "each class, use LogisticLoss where there is a single one, or write a Loss of your own that says what its "
            "probabilities and predictions are"
        )


def check_shapes(logits: Tensor, y: Tensor) -> None:
    """Raise ValueError unless there is a label for each row of logits, [B, K]."""
    check_classes(logits)
    check_labels(y, len(logits))


def check_labels(y: Tensor, number: int) -> None:
    """Raise ValueError unless labels are int64 or uint8 [number]."""
    if y.dtype not in (torch.int64, torch.uint8) or y.shape != (number,):
        raise ValueError(
            f"labels of {y.dtype}, {list(y.shape)}, for {number} logits: give the number of each example's class, "
            f"int64 [{number}], such as y.argmax(dim=1) of one-hot rows, or override unpack; other targets can be "
            "trained on with a loss_fn of your own, but not judged"
        )


def check_range(y: Tensor, classes: int) -> None:
    """Raise ValueError unless labels are 0 to classes - 1, which waits for the device."""
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels go from {low} to {high}, and the logits are of {classes} classes: count classes from 0 to "
            f"{classes - 1}, or let the backbone give more logits (num_classes)"
        )
