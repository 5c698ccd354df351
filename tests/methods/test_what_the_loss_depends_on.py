"""Everything that the loss depends on is trained on both halves, wherever its parameters are kept."""

from __future__ import annotations

from collections.abc import Callable
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
    Method,
    Objective,
    Passes,
    PerturbationSite,
    SignNoise,
    adversarial_objective,
)
from tests.support.helpers import Counter, batches, fit, mlp

EPS, ALPHA = 0.1, 0.3


class Outside(nn.Module):
    """A network with a parameter that it does not list."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.hidden = [torch.full((6,), 0.5, dtype=torch.float64, requires_grad=True)]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * self.hidden[0])


def in_the_loss() -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], Tensor]:
    temperature = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    return mlp(), lambda logits, y: F.cross_entropy(logits / temperature, y), temperature


def in_the_network() -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], Tensor]:
    net = Outside()
    return net, F.cross_entropy, net.hidden[0]


@pytest.mark.parametrize("build", [in_the_loss, in_the_network])
def test_an_unlisted_parameter_gets_the_gradient_of_both_halves(build: Any) -> None:
    x, y = batches(1).batches[0]
    net, loss_fn, unlisted = build()
    listed = list(net.parameters())
    site = InputSite(FGSM(EPS))
    adversarial_objective(net, x, y, loss_fn=loss_fn, sites=[site], alpha=ALPHA).total.backward()
    found = [p.grad.clone() for p in (unlisted, *listed)]

    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss_fn(net(leaf), y), leaf)
    total = ALPHA * loss_fn(net(x), y) + (1 - ALPHA) * loss_fn(net(x + EPS * grad.sign()), y)
    expected = torch.autograd.grad(total, [unlisted, *listed])
    torch.testing.assert_close(found, list(expected), rtol=0, atol=1e-12)


def test_what_the_loss_does_not_reach_has_no_gradient() -> None:
    net = nn.ModuleDict({"used": mlp(), "unused": mlp()})
    x, y = batches(1).batches[0]
    loss = adversarial_objective(net["used"], x, y, loss_fn=F.cross_entropy, sites=[InputSite(FGSM(EPS))], alpha=ALPHA)
    loss.total.backward()
    assert all(p.grad is not None for p in net["used"].parameters())
    assert all(p.grad is None for p in net["unused"].parameters())


def sites_of(net: nn.Sequential, kind: str) -> list[PerturbationSite]:
    at_layer = [LayerSite(net[0], "0", FGSM(EPS))]
    return {"input": [InputSite(FGSM(EPS))], "noise": [InputSite(Shift())], "layer": at_layer}[kind]


class Shift(SignNoise):
    """Noise that is known."""

    def __init__(self) -> None:
        super().__init__(EPS)

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + EPS


@pytest.mark.parametrize("kind", ["input", "noise", "layer"])
@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_what_the_input_was_computed_from_gets_both_gradients(kind: str, crafting: Any, alpha: float) -> None:
    torch.manual_seed(1)
    encoder, net = nn.Linear(6, 6).double(), mlp()
    raw, y = batches(1).batches[0]
    parameters = [*encoder.parameters(), *net.parameters()]
    adversarial_objective(
        net,
        encoder(raw),
        y,
        loss_fn=F.cross_entropy,
        sites=sites_of(net, kind),
        alpha=alpha,
        passes=Passes(crafting=crafting),
    ).total.backward()
    found = [p.grad.clone() for p in parameters]

    # The perturbation by hand, a constant.
    value = net[0](encoder(raw)) if kind == "layer" else encoder(raw)
    rest = net[1:] if kind == "layer" else net
    leaf = value.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(rest(leaf), y), leaf)
    moved = value + (EPS if kind == "noise" else EPS * grad.sign())
    total = alpha * F.cross_entropy(rest(value), y) + (1 - alpha) * F.cross_entropy(rest(moved), y)
    torch.testing.assert_close(found, list(torch.autograd.grad(total, parameters)), rtol=0, atol=1e-12)


class HalfAndHalf(Method):
    """A user's method, which gets the crafted input."""

    def __init__(self, attack: Any) -> None:
        super().__init__()
        self.attack = attack

    def loss(self, learner: Any, x: Tensor, x_adv: Tensor, y: Tensor) -> Objective:
        return Objective(learner.loss(learner(x_adv), y))


class Encoded(AdversarialModule):
    """Unpacks batches by a part of its own that is trained."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(mlp(), optimizer=lambda params: torch.optim.SGD(params, lr=0.1), **kwargs)
        torch.manual_seed(1)
        self.encoder = nn.Linear(6, 6).double()

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.encoder(batch[0]), batch[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"attack": FGSM(EPS)},
        {"attack": PGD(EPS, steps=2, random_start=False)},
        {"attack": SignNoise(EPS)},
        {"attack": FGSM(EPS), "alpha": 0.0},
        {"attack": FGSM(EPS), "crafting": "eval", "masks": "shared", "statistics": "clean"},
        {"method": HalfAndHalf(PGD(EPS, steps=2))},
        {"method": HalfAndHalf(FGSM(EPS))},
    ],
    ids=str,
)
def test_an_encoder_in_unpack_trains(arguments: Any) -> None:
    module = Encoded(**arguments)
    before = module.encoder.weight.clone()
    fit(module, batches(3))
    assert not torch.equal(module.encoder.weight, before)


def test_the_crafted_input_of_an_encoded_batch_is_the_attacks() -> None:
    module = Encoded(attack=PGD(EPS, steps=2, random_start=False), alpha=0.0)
    x, y = module.unpack(batches(1).batches[0])
    x_adv = module.attack(module, x, y, loss_fn=module.loss)
    torch.testing.assert_close(module.objective(x, y).total, module.loss(module(x_adv), y), rtol=0, atol=1e-12)


def test_an_encoder_costs_one_more_backward_pass() -> None:
    module = Encoded(attack=FGSM(EPS))
    counter = Counter(module.backbone)
    fit(module, batches(1))
    assert (counter.forward, counter.backward) == (2, 3)  # the clean graph is kept, and run backward again
