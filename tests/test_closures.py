"""Optimizers that evaluate a batch several times: each time the same function, counted once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from adv_lightning import (
    FGSM,
    AdversarialModule,
    HiddenPerturbation,
    InputNoise,
    RubbishTraining,
    SignNoise,
    UniformNoise,
)
from tests.support.helpers import Batches, batches, fit, mlp

LBFGS = partial(torch.optim.LBFGS, lr=1e-9, max_iter=4, tolerance_change=0, tolerance_grad=0)
"""Evaluates each batch four times, and moves the weights by nothing that a loss would show."""


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    seed_everything(3, verbose=False)


class Recorded(AdversarialModule):
    """Keeps the loss of every closure, by batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[tuple[int, int], list[float]] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.seen.setdefault((self.current_epoch, batch_idx), []).append(float(loss.detach()))
        return loss


def trained(callback: Callback | None, net: nn.Module, loader: Batches, **kwargs: Any) -> tuple[Recorded, Trainer]:
    module = Recorded(
        net, None if isinstance(callback, InputNoise) else FGSM(0.1), val_attack=FGSM(0.1), optimizer=LBFGS
    )
    return module, fit(module, loader, callbacks=[callback] if callback else [], **kwargs)


@pytest.mark.parametrize(
    "callback",
    [
        None,
        InputNoise(SignNoise(0.5)),
        InputNoise(UniformNoise(0.5), compare_every_n_steps=1),
        RubbishTraining(),
        HiddenPerturbation({"0": SignNoise(0.5)}),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_a_batch_is_the_same_function_each_time(callback: Callback | None) -> None:
    module, _ = trained(callback, nn.Sequential(*mlp(), nn.Dropout(0.3)), batches(3), max_epochs=2)
    assert len(module.seen) == 6
    for losses in module.seen.values():
        assert len(losses) > 2
        assert losses == pytest.approx([losses[0]] * len(losses), abs=1e-6)
    firsts = [losses[0] for losses in module.seen.values()]
    assert len(set(firsts)) == 6  # other batches have other draws


def test_a_batch_is_counted_once_and_by_its_size() -> None:
    loader = Batches(*batches(1, size=32), *batches(2, size=8, seed=1))
    module, trainer = trained(None, mlp(), loader, log_every_n_steps=3)
    firsts = [losses[0] for losses in module.seen.values()]
    expected = sum(loss * size for loss, size in zip(firsts, (32, 8, 8), strict=True)) / 48
    for key in ("train/loss_epoch", "train/loss"):
        assert float(trainer.callback_metrics[key]) == pytest.approx(expected, rel=1e-5)


class Logged(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if "train/loss" in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics["train/loss"]))


def test_means_since_the_last_log_go_on_over_epochs() -> None:
    """Five steps a log, three steps an epoch."""
    module = Recorded(mlp(), FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=0.3))
    logged = Logged()
    fit(module, batches(3), max_epochs=4, log_every_n_steps=5, callbacks=[logged])
    losses = [loss for (loss,) in module.seen.values()]
    assert logged.values[-1] == pytest.approx(sum(losses[5:10]) / 5, rel=1e-6)
    assert logged.values[0] == pytest.approx(sum(losses[:5]) / 5, rel=1e-6)


def test_a_second_training_of_one_batch_is_counted() -> None:
    module = Recorded(mlp(), FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=0.0))
    for _ in range(2):
        trainer = fit(module, batches(1))
        assert float(trainer.callback_metrics["train/loss_epoch"]) == pytest.approx(module.seen[0, 0][-1], rel=1e-6)
