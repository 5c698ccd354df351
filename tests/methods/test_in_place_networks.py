"""A network that works in place on its input trains and is judged like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import (
    FGSM,
    PGD,
    AdversarialModule,
    InputSite,
    LayerSite,
    PerturbationSite,
    SingleStepAttack,
    UniformNoise,
    adversarial_objective,
)
from adv_lightning.attacks import Attack, TorchAttack
from adv_lightning.models import Ensemble
from tests.support.helpers import Batches, fit, quiet_trainer


class Negated(nn.Module):
    """Turns its input round, in place or not. Twice is none, so a second pass on the same memory is wrong."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        return x.neg_() if self.in_place else -x


def net(in_place: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Negated(in_place), nn.Flatten(), nn.Linear(36, 3)).double()


def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(12, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, net(False)(x).argmax(dim=1)


class Same(SingleStepAttack):
    """A rule that returns what it gets."""

    needs_grad = False

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value


ATTACKS: list[Any] = [None, UniformNoise(0), UniformNoise(0.1), FGSM(0.1), PGD(0.1, steps=2, restarts=2), Same()]
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=str)


@attacks
def test_is_judged_and_trained_like_another(attack: Attack | None) -> None:
    """Losses, weights and error rates are the same, and the caller's batch stays as it was."""
    outcomes = []
    for in_place in (False, True):
        x, y = data()
        before = x.clone()
        module = AdversarialModule(
            net(in_place), attack=attack, optimizer=lambda params: torch.optim.SGD(params, lr=0.1)
        )
        judged = quiet_trainer().test(module, Batches((x, y)), verbose=False)[0]
        predicted = quiet_trainer().predict(module, Batches((x, y)))
        trainer = fit(module, Batches((x, y)), Batches((x, y)), max_epochs=2)
        figures = {key: value.item() for key, value in trainer.callback_metrics.items()}
        assert torch.equal(x, before)
        outcomes.append((judged, predicted, figures, module.backbone[2].weight.detach()))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=0, atol=0)
    if attack is None or getattr(attack, "eps", 0) == 0:
        assert outcomes[1][0]["test/error"] == 0
        assert outcomes[1][0].get("test/adv_error", 0) == 0


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a is not None], ids=str)
def test_an_attack_alone(attack: Attack) -> None:
    x, y = data()
    before = x.clone()
    found = [attack(net(in_place).eval(), x, y, loss_fn=F.cross_entropy) for in_place in (False, True)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(x, before)


def test_an_attack_of_a_library() -> None:
    pytest.importorskip("torchattacks")
    test_an_attack_alone(TorchAttack("PGD", arguments={"eps": 0.1, "alpha": 0.05, "steps": 2}))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["input", "layer", "same"])
def test_the_objective_of_a_bare_network(kind: str, alpha: float) -> None:
    x, y = data()
    before = x.clone()
    totals = []
    for in_place in (False, True):
        model = net(in_place)
        site: PerturbationSite = LayerSite(model[2], "2", FGSM(0.1)) if kind == "layer" else InputSite(FGSM(0.1))
        if kind == "same":
            site = InputSite(Same())
        objective = adversarial_objective(model, x, y, loss_fn=F.cross_entropy, sites=[site], alpha=alpha)
        objective.total.backward()
        totals.append((objective.total.detach(), model[2].weight.grad))
        assert torch.equal(x, before)
    torch.testing.assert_close(totals[1], totals[0], rtol=0, atol=0)


def test_members_of_an_ensemble() -> None:
    x, _ = data()
    plain, in_place = (Ensemble([net(kind), net(kind)])(x) for kind in (False, True))
    assert torch.equal(plain, in_place)
