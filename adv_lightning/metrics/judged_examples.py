"""Which examples an evaluation judged, as one short text."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

_FEATURES = 256
_STEPS = 4096
_LARGEST = 2.0**40
_MASK = (1 << 64) - 1


class JudgedExamples(Metric):
    """A fingerprint of the examples of an evaluation, to tell whether two figures are of the same ones.

    It is the same in any order, for any batch size, number of processes and device: a sum, in whole numbers, over the
    examples. Each counts with its label, and with at most 256 of its values, evenly spread and rounded to 1/4096. It
    does not wait for the device before `compute`.
    """

    full_state_update = False
    number: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("number", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")
        # Not a buffer: DDP would send it to the other processes in every step.
        self._weights = torch.tensor([_odd(i) for i in range(_FEATURES + 1)])

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add examples: inputs, [B, ...], and labels, [B]; B >= 0."""
        if len(x) == 0:
            return
        self._weights = weights = self._weights.to(x.device)
        flat = x.detach().reshape(len(x), -1)
        flat = flat[:, :: max(1, -(-flat.shape[1] // _FEATURES))]
        if flat.is_floating_point():
            flat = (flat.float() * _STEPS).nan_to_num(0.5).clamp(-_LARGEST, _LARGEST).round()
        hashed = (flat.long() * weights[: flat.shape[1]]).sum(1) + (y.detach().long() + 1) * weights[-1]
        # A sum of plain products would not see two examples that swap their labels.
        hashed = (hashed ^ (hashed >> 31)) * weights[0]
        self.total += (hashed ^ (hashed >> 29)).sum()
        self.number += len(x)

    def compute(self) -> str:
        """Return the number of examples and the sum, as one text; "" if there were none."""
        number, total = int(self.number), int(self.total)
        return f"{number}:{total & _MASK:016x}" if number else ""


def _odd(i: int) -> int:
    """Return the i-th of fixed odd numbers of 64 bits, as a signed one. Source: splitmix64, Steele et al. 2014."""
    z = ((i + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z = (z ^ (z >> 31)) | 1
    return z - (1 << 64) if z >> 63 else z
