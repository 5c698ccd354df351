"""Tensors in configurations, such as the `weight` of torch.nn.CrossEntropyLoss: written as lists."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import register_type
from torch import Tensor


def _read(value: Any) -> Tensor:
    if not isinstance(value, list | int | float):
        raise ValueError(f"expected numbers, as in [1.0, 2.5], got {value!r}")
    return torch.tensor(value, dtype=torch.get_default_dtype())


def register() -> None:
    """Let jsonargparse read lists of numbers for arguments that are tensors. They become floating-point tensors."""
    register_type(Tensor, Tensor.tolist, _read, fail_already_registered=False)
