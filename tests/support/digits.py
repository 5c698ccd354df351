"""A small network trained on the digits, and a record of what its training did."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.data import DigitsDataModule
from tests.support.helpers import quiet_trainer, weights

EPS = 0.1
NO_DROPOUT = ["--model.backbone.input_dropout=0", "--model.backbone.dropout=0"]


def net(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), *between, nn.Linear(16, 10))


def module(backbone: nn.Module | None = None, lr: float = 0.1, **kwargs: Any) -> AdversarialModule:
    kwargs = {"attack": FGSM(EPS), "optimizer": partial(torch.optim.SGD, lr=lr)} | kwargs
    return AdversarialModule(net() if backbone is None else backbone, **kwargs)


def trainer(**kwargs: Any) -> Trainer:
    return quiet_trainer(**({"limit_train_batches": 4, "limit_val_batches": 1, "limit_test_batches": 1} | kwargs))


def fit(model: AdversarialModule, data: DigitsDataModule | None = None, **kwargs: Any) -> Trainer:
    """Fit four batches of 100 and judge one, unless told."""
    run = trainer(**kwargs)
    run.fit(model, datamodule=data or DigitsDataModule())
    return run


class Watch(Callback):
    """Records events in order, and the labels, weights and loss of each training batch."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.labels: list[list[int]] = []
        self.weights: list[Tensor] = []
        self.losses: list[float] = []
        self.validated: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert not any(name.startswith("val/") for name in trainer.callback_metrics)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.events.append("epoch")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        self.events.append("train")
        self.labels.append(args[0][1].tolist())
        self.weights.append(weights(pl_module))
        self.losses.append(outputs["loss"].item() * trainer.accumulate_grad_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("val")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated.append(trainer.global_step)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("test")


class Inputs:
    """Records the inputs of the clean and of the perturbed pass, in training."""

    def __init__(self, model: AdversarialModule) -> None:
        self.seen: list[Tensor] = []
        model.backbone.register_forward_pre_hook(self._hook)

    def _hook(self, backbone: nn.Module, args: tuple[Tensor, ...]) -> None:
        if backbone.training:
            self.seen.append(args[0].detach().clone())

    def perturbation(self) -> Tensor:
        return torch.stack([b.double() - a.double() for a, b in zip(self.seen[::2], self.seen[1::2], strict=True)])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def figures(folder: Path) -> list[dict[str, str]]:
    """The rows of the only metrics.csv below `folder`."""
    (path,) = folder.rglob("metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
