from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from adv_lightning import FGSM, AdversarialModule, MomentumSchedule
from tests.support.helpers import batches, fit, mlp


class Momenta(Callback):
    """Keeps the momentum of each batch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.seen += [group["momentum"] for group in trainer.optimizers[0].param_groups]


def test_rises_linearly_then_holds() -> None:
    momenta = Momenta()
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.1))
    fit(module, batches(2), max_epochs=6, callbacks=[MomentumSchedule(0.5, 0.9, epochs=4), momenta])
    expected = [m for m in (0.5, 0.6, 0.7, 0.8, 0.9, 0.9) for _ in range(2)]
    assert momenta.seen == pytest.approx(expected, abs=1e-12)


def test_optimizer_uses_it() -> None:
    def trained(momentum: float, *callbacks: Callback) -> torch.Tensor:
        module = AdversarialModule(mlp(), FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=0.1, momentum=momentum))
        fit(module, batches(4), callbacks=list(callbacks))
        return module.backbone[0].weight.detach()

    assert torch.equal(trained(0.1, MomentumSchedule(0.7, 0.7)), trained(0.7))
    assert not torch.equal(trained(0.1), trained(0.7))


def test_refuses_an_optimizer_without_momentum() -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=torch.optim.Adam)
    with pytest.raises(TypeError, match=r"Adam.*torch\.optim\.SGD"):
        fit(module, batches(1), callbacks=[MomentumSchedule()])


@pytest.mark.parametrize(("name", "value"), [("start", -0.1), ("end", 1.0), ("epochs", 0)])
def test_refuses_bad_arguments(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        MomentumSchedule(**{name: value})
