"""Validation attacks with what was configured, whatever a schedule does to the attack of training."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, Mixed
from adv_lightning.attacks.copying import copy_of
from tests.support.helpers import batches, fit, mlp


class Grow(Callback):
    """Begins with a small eps."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, AdversarialModule)
        pl_module.attack.eps = 0.01 * trainer.current_epoch  # type: ignore[union-attr]


@pytest.mark.parametrize("given", ["attack", "method"])
@pytest.mark.parametrize("attack", [FGSM(0.5), PGD(0.5, steps=2)], ids=lambda attack: type(attack).__name__)
def test_a_schedule_of_eps_leaves_validation(attack: Attack, given: str) -> None:
    attack = copy_of(attack)
    module = AdversarialModule(mlp(), **{given: attack if given == "attack" else Mixed(attack)})  # type: ignore[arg-type]
    trainer = fit(module, batches(1), batches(2), max_epochs=2, callbacks=[Grow()])
    assert module.attack is not None
    assert module.attack.eps == 0.01
    assert module.val_attack is not None
    assert module.val_attack.eps == 0.5
    again = AdversarialModule(module.backbone, None, val_attack=copy_of(module.val_attack))
    trainer.validate(again, batches(2), verbose=False)
    first = trainer.callback_metrics["val/adv_error"]
    trainer.validate(module, batches(2), verbose=False)
    assert trainer.callback_metrics["val/adv_error"] == first


class Around(Attack):
    """An attack inside an attack, with a network, a tensor and a generator of its own."""

    def __init__(self, inner: Attack, net: nn.Module) -> None:
        super().__init__()
        self.inner, self.net, self.nets = inner, net, [net]
        self.pattern = nn.Parameter(torch.zeros(3))
        self.generator = torch.Generator()
        self.sizes = [0.1, 0.2]

    def forward(self, model: Any, x: Tensor, y: Tensor, *, loss_fn: Any) -> Tensor:
        return self.inner(model, x, y, loss_fn=loss_fn)


def test_networks_and_tensors_are_shared_and_settings_are_not() -> None:
    attack = Around(FGSM(0.1), mlp())
    copied = copy_of(attack)
    attack.inner.eps = 0.2  # type: ignore[union-attr]
    attack.sizes.append(0.3)
    assert copied.inner.eps == 0.1
    assert copied.sizes == [0.1, 0.2]
    assert copied.net is copied.nets[0] is attack.net
    assert copied.pattern is attack.pattern
    assert copied.generator is attack.generator
    module = AdversarialModule(mlp(seed=1), attack)
    assert len(list(module.parameters())) == len(list(module.backbone.parameters())) + len(list(attack.parameters()))


def test_an_attack_that_cannot_be_copied_is_shared_and_named() -> None:
    class Holds(FGSM):
        def __init__(self, eps: float) -> None:
            super().__init__(eps)
            self.lock = threading.Lock()

    with pytest.warns(UserWarning, match="cannot be copied.*Pass another one as val_attack"):
        module = AdversarialModule(mlp(), Holds(0.1))
    assert module.val_attack is module.attack


def test_an_attack_of_validations_own_is_not_copied() -> None:
    attack = FGSM(0.1)
    assert AdversarialModule(mlp(), None, val_attack=attack).val_attack is attack
    assert AdversarialModule(mlp()).val_attack is None
