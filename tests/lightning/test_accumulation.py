"""Batches accumulated into a step, clipping, and LBFGS."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch.callbacks import (
    GradientAccumulationScheduler,
)
from torch import Tensor

from adv_lightning.data import DigitsDataModule
from tests.lightning.conftest import Command
from tests.support.digits import NO_DROPOUT, fit, module, net
from tests.support.helpers import weights


@pytest.mark.switch("works", "accumulate_grad_batches=2")
def test_accumulate_grad_batches() -> None:
    def trained(size: int, accumulate: int) -> Tensor:
        model = module(net().double())
        kwargs = {"precision": "64-true", "limit_train_batches": 3 * accumulate}
        fit(model, DigitsDataModule(batch_size=size), accumulate_grad_batches=accumulate, **kwargs)
        return weights(model)

    assert not torch.equal(trained(100, 1), weights(net().double()))
    torch.testing.assert_close(trained(50, 2), trained(100, 1), rtol=0, atol=1e-14)


@pytest.mark.switch("works", "GradientAccumulationScheduler")
def test_gradient_accumulation_scheduler() -> None:
    run = fit(module(), max_epochs=2, callbacks=[GradientAccumulationScheduler({0: 1, 1: 2})])
    assert run.global_step == 4 + 2


@pytest.mark.switch("works", "gradient_clip_val")
@pytest.mark.parametrize(("algorithm", "size"), [("norm", 2), ("value", torch.inf)])
def test_gradient_clip_val(algorithm: str, size: float) -> None:
    model = module(lr=1.0)
    before = weights(model)
    fit(model, limit_train_batches=1, gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm)
    assert (weights(model) - before).norm(p=size).item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.switch("works", "LBFGS")
def test_lbfgs(command: Command) -> None:
    optimizer = ["--model.optimizer=torch.optim.LBFGS", "--model.optimizer.lr=0.5", "--model.optimizer.max_iter=5"]
    cli = command(*optimizer, *NO_DROPOUT, "--trainer.max_epochs=2")
    (state,) = cli.trainer.optimizers[0].state.values()
    assert cli.trainer.global_step == 8
    assert state["func_evals"] >= 3 * cli.trainer.global_step
    assert cli.trainer.callback_metrics["val/loss"] < 0.9 * math.log(10)
