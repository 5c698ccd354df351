"""The networks that are measured, each with a batch of random images in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adv_lightning.models import MaxoutMLP, SmallConvNet, TorchvisionModel


@dataclass(frozen=True)
class Net:
    """A network with the size of its batch.

    Args:
        name: What it is called in the tables.
        build: Makes it, in train mode.
        shape: Of a batch, [B, C, H, W].
        rounds: How often a step is measured.
        bar: The most that a step may cost, over the hand-written one. None: no bars.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int, int]
    rounds: int
    bar: float | None = None

    def made(self, device: torch.device) -> nn.Module:
        """Return the network with weights that are always the same."""
        torch.manual_seed(0)
        return self.build().to(device)

    def batch(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images, float32 in [0, 1], and labels of ten classes."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.shape, generator=generator)
        return x.to(device), torch.randint(10, (len(x),), generator=generator).to(device)


MAXOUT_240 = Net("maxout 240 x 5", MaxoutMLP, (100, 1, 28, 28), rounds=60, bar=1.10)
MAXOUT_1600 = Net("maxout 1600 x 5", lambda: MaxoutMLP(units=1600), (100, 1, 28, 28), rounds=10, bar=1.15)
CONVNET = Net("SmallConvNet", SmallConvNet, (128, 1, 28, 28), rounds=8, bar=1.10)
RESNET = Net("ResNet-18, 32x32", lambda: TorchvisionModel("resnet18"), (128, 3, 32, 32), rounds=2, bar=1.10)
TINY = Net("tiny maxout", lambda: MaxoutMLP(input_shape=(1, 8, 8), units=4, pieces=2), (10, 1, 8, 8), rounds=2)
