"""A classifier that remembers its batches."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Recorder(LightningModule):
    """A linear classifier of the digits that remembers every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 10)
        self.seen: list[tuple[int, int, Tensor, Tensor]] = []
        self.seen_before: list[Tensor] = []
        self.judged: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        self.seen.append((self.current_epoch, batch_idx, x.clone(), y.clone()))
        return torch.nn.functional.cross_entropy(self.linear(x.flatten(1)), y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.judged.append(batch[1].clone())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.judged.append(batch[1].clone())

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return batch[1].clone()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)
