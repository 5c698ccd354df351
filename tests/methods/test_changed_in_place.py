"""Losses, networks and `unpack` that work in place or keep state: no figure and no buffer depends on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, AttackSuite, Square
from adv_lightning.losses import Loss
from tests.support.helpers import Batches, batches, mlp, quiet_trainer

BATCH = next(iter(batches(1)))
ATTACKS = [FGSM(0.2), PGD(0.2, steps=2, random_start=False)]


def judged(module: AdversarialModule, *callbacks: Any) -> dict[str, float]:
    return dict(quiet_trainer(callbacks=list(callbacks)).test(module, batches(3), verbose=False)[0])


class InPlaceLoss(nn.Module):
    """Cross-entropy that ruins its arguments afterwards."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(logits.clone(), y.clone())
        with torch.no_grad():
            logits.mul_(-1)
            y.add_(1).remainder_(3)
        return loss


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_loss_that_works_in_place_is_judged_like_another(attack: Any) -> None:
    net = mlp()
    plain, in_place = (judged(AdversarialModule(net, attack, loss_fn=loss)) for loss in (None, InPlaceLoss()))
    assert in_place == pytest.approx(plain)


class ChangesTargets(nn.Module):
    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, y.clone())
        y.zero_()
        return loss


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_adversarial_pass_has_the_targets_of_the_batch(attack: Any, alpha: float) -> None:
    net, (x, y) = mlp(), BATCH
    found = []
    for loss in (None, ChangesTargets()):
        objective = AdversarialModule(net, attack, alpha, loss_fn=loss).objective(x, y.clone())
        found.append(objective.total.item())
    assert found[0] == pytest.approx(found[1])


class UnpacksInPlace(AdversarialModule):
    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, y = batch
        return x.div_(2), y


def test_unpack_may_work_in_place() -> None:
    suite = {"pgd": PGD(0.2, steps=2), "fgsm": FGSM(0.1)}
    whole = Batches(*[(x / 2, y) for x, y in batches(3)])
    net = mlp()
    expected = quiet_trainer(callbacks=[AttackSuite(suite)]).test(
        AdversarialModule(net, FGSM(0.2), val_attack_samples=5), whole, verbose=False
    )[0]
    found = judged(UnpacksInPlace(net, FGSM(0.2), val_attack_samples=5), AttackSuite(suite))
    assert found == pytest.approx(expected)


class OwnForward(AdversarialModule):
    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x.mul_(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_forward_of_ones_own_may_work_in_place(attack: Any) -> None:
    net = mlp()
    doubled = AdversarialModule(nn.Sequential(Doubled(), net), attack)
    assert judged(OwnForward(net, attack)) == pytest.approx(judged(doubled))
    assert doubled.copies_inputs
    assert not OwnForward(net, attack).copies_inputs


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Counts(nn.Module):
    """Counts its passes in train mode, in a buffer that it makes in the first one; `eval` does not stop it."""

    count: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count = torch.ones(()) if self.count is None else self.count + 1
        return x

    def train(self, mode: bool = True) -> Counts:
        return super().train()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_leaves_a_buffer_that_is_not_there_yet(attack: Any) -> None:
    counts = Counts()
    x, y = BATCH
    attack(nn.Sequential(counts, mlp()), x, y, loss_fn=F.cross_entropy)
    assert counts.count is None


@pytest.mark.parametrize("attack", ATTACKS)
def test_crafting_in_eval_mode_moves_no_buffer_of_a_layer_that_stays_in_train_mode(attack: Any) -> None:
    counts = Counts()
    module = AdversarialModule(nn.Sequential(counts, mlp()), attack, crafting="eval", statistics="clean")
    module.objective(*BATCH)
    assert counts.count == 1


class CountingLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.counts(logits), y)


@pytest.mark.parametrize(("statistics", "expected"), [("clean", 1), ("both", 2)])
def test_statistics_are_those_of_the_loss_too(statistics: Any, expected: int) -> None:
    loss = CountingLoss()
    AdversarialModule(mlp(), FGSM(0.1), loss_fn=loss, statistics=statistics).objective(*BATCH)
    assert loss.counts.count == expected


class Distances(Loss):
    """Logits are distances: the smallest names the class."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(-logits, y)

    def probabilities(self, logits: Tensor) -> Tensor:
        return (-logits).softmax(dim=1)

    def predict(self, logits: Tensor) -> Tensor:
        return logits.argmin(dim=1)


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


def test_restarts_go_by_the_classes_that_the_loss_predicts() -> None:
    net, attack = mlp(), PGD(0.1, steps=2, step_size=0.05, restarts=8)
    softmax = AdversarialModule(net, attack).eval()
    distances = AdversarialModule(nn.Sequential(net, Negative()), attack, loss_fn=Distances()).eval()
    x = BATCH[0]
    y = softmax(x).argmax(dim=1)
    expected, found = (attack(module, x, y, loss_fn=module.loss) for module in (softmax, distances))
    assert torch.equal(expected, found)
    assert not torch.equal(found, PGD(0.1, steps=2, step_size=0.05)(softmax, x, y, loss_fn=softmax.loss))


def test_a_search_goes_by_the_classes_that_the_loss_predicts() -> None:
    net, attack = mlp(), Square(0.3, queries=30)
    x = BATCH[0]
    softmax = AdversarialModule(net).eval()
    distances = AdversarialModule(nn.Sequential(net, Negative()), loss_fn=Distances()).eval()
    y = softmax(x).argmax(dim=1)
    wrong = [
        (module.loss_fn.predict(module(attack(module, x, y, loss_fn=module.loss))) != y)
        for module in (softmax, distances)
    ]
    assert wrong[1].any()
    assert torch.equal(*wrong)


class Observes(nn.Module):
    """Follows the range of its inputs in any mode, as observers of quantisation do."""

    def __init__(self, parameter: bool) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        if parameter:
            del self.seen
            self.seen = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(x.detach().abs().max())
        return x / (1 + self.seen.detach().clone())


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_changes_in_eval_mode_is_named(attack: Any, parameter: bool) -> None:
    with pytest.warns(UserWarning, match="backbone.0.seen, of 1 tensors of the network, changes in eval mode"):
        judged(AdversarialModule(nn.Sequential(Observes(parameter), mlp()), attack))
