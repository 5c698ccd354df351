"""`statistics: clean`: every buffer ends as plain training leaves it, whatever the layers and whenever they run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, InputSite, LayerSite, Passes, RubbishTraining, SignNoise
from adv_lightning import adversarial_objective as objective_of
from tests.attacks.test_model_mode import Checkpointed, images, layers, net
from tests.support.helpers import Batches, Snapshot, fit

WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": nn.Sequential,
    "checkpoint": Checkpointed,
    "reentrant": lambda inner: Checkpointed(inner, True),
}


def after_plain_training(model: nn.Module) -> Snapshot:
    """The buffers after a clean pass and its backward pass."""
    twin, (x, y) = copy.deepcopy(model), images()
    F.cross_entropy(twin(x), y).backward()
    twin.zero_grad()
    return Snapshot(twin)


@layers
@pytest.mark.parametrize("wrap", ["plain", "checkpoint"])
@pytest.mark.parametrize("rule", [FGSM(0.1), SignNoise(0.1)], ids=["FGSM", "noise"])
@pytest.mark.parametrize("replay", [True, False])
def test_buffers_end_as_in_plain_training(layer: str, wrap: str, rule: Any, replay: bool) -> None:
    model, (x, y) = net(layer, WRAPS[wrap]), images()
    expected = after_plain_training(model)
    passes = Passes(statistics="clean")
    objective_of(
        model, x, y, loss_fn=F.cross_entropy, sites=[InputSite(rule)], alpha=0.5, passes=passes, replay=replay
    ).total.backward()
    model.zero_grad()
    expected.assert_same(model)


@layers
def test_noise_under_the_older_checkpointing(layer: str) -> None:
    model, (x, y) = net(layer, WRAPS["reentrant"]), images()
    expected = after_plain_training(model)
    sites = [InputSite(SignNoise(0.1))]
    passes = Passes(statistics="clean")
    objective_of(model, x, y, loss_fn=F.cross_entropy, sites=sites, alpha=0.5, passes=passes).total.backward()
    model.zero_grad()
    expected.assert_same(model)


def test_both_passes_move_them_by_default() -> None:
    model, (x, y) = net("instance norm"), images()
    once = after_plain_training(model)
    objective_of(model, x, y, loss_fn=F.cross_entropy, sites=[InputSite(FGSM(0.1))], alpha=0.5).total.backward()
    model.zero_grad()
    with pytest.raises(AssertionError):
        once.assert_same(model)


@pytest.mark.parametrize("wrap", ["plain", "checkpoint"])
def test_gradients_are_those_of_two_plain_passes(wrap: str) -> None:
    model, (x, y) = net("instance norm", WRAPS[wrap]).double(), images()
    x = x.double()
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
    total = 0.5 * F.cross_entropy(model(x), y) + 0.5 * F.cross_entropy(model(x + 0.1 * grad.sign()), y)
    expected = torch.autograd.grad(total, list(model.parameters()))
    passes = Passes(statistics="clean")
    sites = [InputSite(FGSM(0.1))]
    objective_of(model, x, y, loss_fn=F.cross_entropy, sites=sites, alpha=0.5, passes=passes).total.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], list(expected), rtol=0, atol=1e-12)


@layers
@pytest.mark.parametrize("wrap", ["plain", "checkpoint"])
@pytest.mark.parametrize("kind", ["PGD", "hidden", "rubbish"])
def test_in_training(layer: str, wrap: str, kind: str) -> None:
    """A whole step of the trainer: the attack's own passes, hidden sites and rubbish leave the buffers too."""

    def build(attack: Any) -> AdversarialModule:
        return AdversarialModule(
            net(layer, WRAPS[wrap]),
            attack=attack,
            statistics="clean",
            optimizer=lambda params: torch.optim.SGD(params, lr=0.0),
        )

    plain, module = build(None), build(PGD(0.1, steps=2) if kind == "PGD" else FGSM(0.1))
    if kind == "hidden":
        module.sites.append(LayerSite(module.backbone[4], "4", FGSM(0.1)))
    fit(plain, Batches(images()))
    callbacks = [RubbishTraining()] if kind == "rubbish" else []
    fit(module, Batches(images()), callbacks=callbacks)
    Snapshot(_bare(plain)).assert_same(_bare(module))


def _bare(module: LightningModule) -> nn.Module:
    backbone = module.backbone
    assert isinstance(backbone, nn.Module)
    backbone.zero_grad()
    return backbone


def test_rubbish_leaves_the_input_of_the_step() -> None:
    x, y = images()
    before: Tensor = x.clone()
    fit(AdversarialModule(net("batch norm"), attack=FGSM(0.1)), Batches((x, y)), callbacks=[RubbishTraining()])
    assert torch.equal(x, before)


class Twice(nn.Module):
    """A checkpointed layer that runs several times in a pass."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = Checkpointed(inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(self.inner(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("replay", [True, False])
def test_a_checkpointed_layer_may_run_several_times(replay: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(6), Twice(nn.BatchNorm1d(6)), nn.Linear(6, 10))
    x, y = images()
    model(x)
    expected = after_plain_training(model)
    sites, passes = [InputSite(FGSM(0.1))], Passes(statistics="clean")
    objective_of(
        model, x, y, loss_fn=F.cross_entropy, sites=sites, alpha=0.5, passes=passes, replay=replay
    ).total.backward()
    model.zero_grad()
    expected.assert_same(model)
