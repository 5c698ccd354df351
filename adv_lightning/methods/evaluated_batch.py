"""A batch of an evaluation, as tensors that an attack's backward passes may use."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


class Unpacks(Protocol):
    """What has `unpack`, as an AdversarialModule does."""

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return (x, y)."""
        ...


def unpacked(module: Unpacks, batch: Any, rows: slice | Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (x, y) of a batch, without gradients.

    Tensors made under inference mode cannot be saved for a backward pass, and `unpack` may keep some for the network,
    such as a mask. So it gets ordinary ones and runs outside of that mode. They are copies, since it may work in place,
    and several evaluations read one batch.

    Args:
        module: Its `unpack` is called.
        batch: A batch of the data loader.
        rows: Examples to take, of every tensor that has a row for each. None: all.
    """
    with torch.inference_mode(False), torch.no_grad():
        x, y = module.unpack(apply_to_collection(batch, Tensor, Tensor.clone))
        if rows is None:
            return x, y
        n = len(x)

        def taken(each: Tensor) -> Tensor:
            return (each[rows] if each.dim() and len(each) == n else each).clone()

        x, y = module.unpack(apply_to_collection(batch, Tensor, taken))
        # A batch of a class of the user's own may not be divisible.
        return (x, y) if len(x) < n else (x[rows], y[rows])
