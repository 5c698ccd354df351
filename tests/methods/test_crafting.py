"""`crafting: eval`: all of the module is in eval mode while the attack climbs, and back in its modes afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, InputNoise, SignNoise
from adv_lightning.attacks import TorchAttack
from tests.attacks.test_model_mode import Merging, modes
from tests.support.helpers import batches, fit


class OwnDropout(AdversarialModule):
    """A user's module with dropout in its own forward."""

    seen: list[bool]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.training)
        return F.dropout(super().forward(x), 0.5, self.training)


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1)


ATTACKS: list[Attack] = [FGSM(0.1), PGD(0.1, steps=2)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("crafting", ["train", "eval"])
def test_the_module_itself_is_in_the_mode_that_crafting_says(attack: Attack, crafting: Any) -> None:
    module = OwnDropout(nn.Linear(6, 3).double(), attack=attack, crafting=crafting)
    module.seen = []
    x, y = batches(1).batches[0]
    before = modes(module)
    module.objective(x, y)
    assert modes(module) == before
    climbing = 1 if isinstance(attack, FGSM) else 2
    shared = isinstance(attack, FGSM) and crafting == "train"
    expected = [True] * 2 if shared else [crafting == "train"] * climbing + [True] * 2
    assert module.seen == expected


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("crafting", ["train", "eval"])
def test_adapters_that_eval_merges_train(attack: Attack, crafting: Any) -> None:
    layer = Merging()
    module = AdversarialModule(nn.Sequential(layer), attack=attack, crafting=crafting, optimizer=sgd)
    before = layer.up.detach().clone(), layer.down.detach().clone()
    objective = module.objective(*batches(1).batches[0])
    objective.total.backward()
    assert layer.up.grad is not None
    assert layer.up.grad.abs().sum() > 0
    assert not layer.merged
    fit(module, batches(2))
    assert not torch.equal(layer.up, before[0])
    assert not torch.equal(layer.down, before[1])


def test_a_comparison_in_eval_mode_leaves_adapters_to_train() -> None:
    layer = Merging()
    module = AdversarialModule(nn.Sequential(layer), attack=FGSM(0.1), optimizer=sgd)
    before = layer.up.detach().clone()
    fit(module, batches(2), callbacks=[InputNoise(SignNoise(0.1), compare_every_n_steps=1)])
    assert not layer.merged
    assert not torch.equal(layer.up, before)


def test_random_starts_are_drawn_anew() -> None:
    torch.manual_seed(0)
    module = AdversarialModule(nn.Linear(6, 3).double(), attack=PGD(0.1, step_size=0.1, steps=1), crafting="eval")
    x, y = batches(1).batches[0]
    first, second = (module.method.craft(module, x, y) for _ in range(2))
    assert not torch.equal(first, second)
    module.eval()
    module.method.craft(module, x, y)
    assert not module.training


def test_an_attack_of_a_library_too() -> None:
    pytest.importorskip("torchattacks")
    attack = TorchAttack("PGD", arguments={"eps": 0.1, "alpha": 0.05, "steps": 2})
    module = OwnDropout(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), attack=attack, crafting="eval")
    module.seen = []
    module.objective(torch.rand(4, 1, 6, 6), torch.arange(4) % 3)
    assert not any(module.seen[:-2])
    assert module.seen[-2:] == [True, True]
