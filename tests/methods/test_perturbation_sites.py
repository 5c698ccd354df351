"""What a layer's site does to a network, against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adv_lightning import FGSM, InputSite, Passes, PerturbationSite, Rotation, adversarial_objective
from adv_lightning.attacks import Rule, ScaledGradient
from adv_lightning.methods.perturbation_sites import LayerSite
from tests.support.helpers import Batch, Counter, batches


def data() -> Batch:
    return batches(1).batches[0]


def linear(*sizes: int) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Linear(*pair, bias=False) for pair in pairwise(sizes))).double()


def closed_form(
    net: nn.Sequential, batch: Batch, alpha: float, eps: list[float], relative: bool = False
) -> dict[str, np.ndarray]:
    """The gradients of a linear network of which the input and each output but the last are moved by FGSM, by hand.

    `eps[i]` is the size at layer i's input; with `relative` it counts in root mean squares of the live value, which
    are constants. All signs are those of the clean pass.
    """
    weights = [layer.weight.detach().numpy() for layer in net]
    t = F.one_hot(batch[1], 3).double().numpy()

    def passed(moves: list[np.ndarray | None]) -> tuple[list[np.ndarray], np.ndarray]:
        """The input of each layer, moved, and the gradient by the logits."""
        h, seen = batch[0].numpy(), []
        for i, (w, move) in enumerate(zip(weights, moves, strict=True)):
            if move is not None:
                size = np.sqrt((h**2).mean(1, keepdims=True)) if relative and i else 1
                h = h + size * move
            seen.append(h)
            h = h @ w.T
        e = np.exp(h - h.max(1, keepdims=True))
        return seen, (e / e.sum(1, keepdims=True) - t) / len(t)

    def backward(delta: np.ndarray) -> list[np.ndarray]:
        """The gradient by the input of each layer, then that by the logits."""
        found = [delta]
        for w in reversed(weights):
            found.insert(0, found[0] @ w)
        return found

    clean, d = passed([None] * len(weights))
    g = backward(d)
    moved, d_adv = passed([size * np.sign(each) for size, each in zip(eps, g, strict=False)])
    g_adv = backward(d_adv)
    return {
        f"{i}.weight": alpha * g[i + 1].T @ clean[i] + (1 - alpha) * g_adv[i + 1].T @ moved[i]
        for i in range(len(weights))
    }


def gradients(
    net: nn.Module, batch: Batch, sites: list[PerturbationSite], alpha: float = 0.5, **kwargs: Any
) -> dict[str, np.ndarray]:
    net.zero_grad()
    adversarial_objective(net, *batch, loss_fn=F.cross_entropy, sites=sites, alpha=alpha, **kwargs).total.backward()
    return {name: p.grad.numpy().copy() for name, p in net.named_parameters() if p.grad is not None}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5])
@pytest.mark.parametrize(("eps_x", "eps_h"), [(0.1, 0.2), (0.0, 0.2), (None, 0.2), (0.1, None)])
@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_fgsm_at_a_layer_and_at_the_input(
    alpha: float, eps_x: float | None, eps_h: float | None, replay: bool, relative: bool
) -> None:
    net, batch = linear(6, 5, 3), data()
    rule = None if eps_h is None else FGSM(eps_h)
    sites = [InputSite(None if eps_x is None else FGSM(eps_x)), LayerSite(net[0], "0", rule, relative=relative)]
    counter = Counter(net[1])
    found = gradients(net, batch, sites, alpha, replay=replay)
    assert counter.forward == 2
    assert counter.backward == (2 if replay or alpha == 0 else 3)
    assert_equal(found, closed_form(net, batch, alpha, [eps_x or 0.0, eps_h or 0.0], relative))
    assert all(site.value is None for site in sites)
    assert not net[0]._forward_hooks


@pytest.mark.parametrize("relative", [True, False])
def test_layers_share_one_linearisation(relative: bool) -> None:
    net, batch = linear(6, 5, 7, 4, 3), data()
    sites = [InputSite(FGSM(1.0)), *(LayerSite(net[i], str(i), FGSM(0.5), relative=relative) for i in range(3))]
    counter = Counter(net[3])
    found = gradients(net, batch, sites)
    assert (counter.forward, counter.backward) == (2, 2)
    assert_equal(found, closed_form(net, batch, 0.5, [1.0, 0.5, 0.5, 0.5], relative))
    # The perturbations are so large that directions taken one after the other would differ.
    both = closed_form(net, batch, 0.5, [1.0, 0.5, 0.5, 0.5], relative)
    without = closed_form(net, batch, 0.5, [1.0, 0.0, 0.0, 0.0], relative)
    assert max(np.abs(both[name] - without[name]).max() for name in both) > 0.01


@pytest.mark.parametrize("with_input", [True, False])
def test_rotation_turns_the_live_output(with_input: bool) -> None:
    net, batch = linear(6, 5, 3), data()
    lives: list[Tensor] = []
    seen: list[Tensor] = []
    net[0].register_forward_hook(lambda module, args, output: lives.append(output.detach().clone()))
    net[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    angle = 0.3
    gradients(net, batch, [InputSite(FGSM(0.5) if with_input else None), LayerSite(net[0], "0", Rotation(angle))])
    (clean, live), turned = lives, seen[1]
    assert torch.equal(seen[0], clean)
    assert torch.equal(live, clean) != with_input
    torch.testing.assert_close(turned.norm(dim=1), live.norm(dim=1), rtol=1e-13, atol=0)
    cosine = (turned * live).sum(1) / live.norm(dim=1).square()
    torch.testing.assert_close(cosine, torch.full_like(cosine, math.cos(angle)), rtol=1e-12, atol=0)
    # It turns in the plane of the live output and of the clean pass's gradient, towards the latter.
    w2 = net[1].weight.detach()
    gradient = (F.softmax(clean @ w2.T, 1) - F.one_hot(batch[1], 3)) @ w2
    across = gradient - (gradient * live).sum(1, keepdim=True) / live.square().sum(1, keepdim=True) * live
    expected = math.cos(angle) * live + math.sin(angle) * live.norm(dim=1, keepdim=True) * F.normalize(across)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)


def test_relative_to_each_example() -> None:
    site = LayerSite(nn.Identity(), "it", FGSM(0.1), relative=True)
    h = torch.randn(4, 2, 3, 3, dtype=torch.float64) * torch.tensor([1.0, 100.0, 1e-6, 0.0]).view(4, 1, 1, 1)
    with site.perturbed(h, torch.randn(4, 2, 3, 3)):
        moved = site.layer(h.requires_grad_()) - h
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), 0.1 * h.flatten(1).norm(dim=1), rtol=1e-9, atol=0)
    assert moved[3].abs().max() == 0
    assert torch.autograd.grad(moved.sum(), h)[0].abs().max() < 1e-12  # its size is a constant
    scalar = LayerSite(nn.Identity(), "it", FGSM(0.1), relative=True)
    values = torch.tensor([1.0, -20.0, 300.0])
    with scalar.perturbed(values, torch.ones(3)):
        torch.testing.assert_close(scalar.layer(values), torch.tensor([1.1, -18.0, 330.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_relative_in_half_precision(dtype: torch.dtype) -> None:
    site = LayerSite(nn.Identity(), "it", FGSM(0.5), relative=True)
    h = torch.full((2, 8), 1000.0, dtype=dtype)
    with site.perturbed(h, torch.ones(2, 8)):
        moved = site.layer(h)
    assert moved.dtype == dtype
    torch.testing.assert_close(moved.float(), torch.full((2, 8), 1500.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_inplace_layer_above(frozen: bool) -> None:
    def build(inplace: bool) -> nn.Sequential:
        torch.manual_seed(5)
        net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=inplace), nn.Linear(5, 3)).double()
        net[0].requires_grad_(not frozen)
        return net

    results = []
    for inplace in (True, False):
        net = build(inplace)
        results.append(gradients(net, data(), [LayerSite(net[0], "0", FGSM(0.3))]))
    # Without the clone the gradient would be the one after the ReLU, and units that are off would move.
    assert_equal(results[0], results[1])


def test_frozen_layer_below() -> None:
    net, batch = linear(6, 5, 3), data()
    expected = closed_form(net, batch, 0.5, [0.0, 0.2])
    net[0].requires_grad_(False)
    assert_equal(gradients(net, batch, [LayerSite(net[0], "0", FGSM(0.2))]), {"1.weight": expected["1.weight"]})


# Differentiable rules


def reference(
    net: nn.Sequential, batch: Batch, alpha: float, rule: Rule, at: int, *, constant: bool = False, crafting: str
) -> dict[str, np.ndarray]:
    """Double backward by hand: the perturbation of the value that enters layer `at` is a function of the weights."""
    x, y = batch
    leaf = x.clone().requires_grad_()

    def forward(direction: Tensor | None) -> tuple[Tensor, Tensor]:
        h = net[:at](leaf)
        moved = h if direction is None else rule.step(h, direction)
        return h, F.cross_entropy(net[at:](moved), y)

    was = net.training
    net.train(crafting == "train")
    h, craft = forward(None)
    (g,) = torch.autograd.grad(craft, h, create_graph=True)
    net.train(was)
    clean = craft if crafting == "train" else forward(None)[1]
    _, adversarial = forward(len(x) * (g.detach() if constant else g))
    names, params = zip(*net.named_parameters(), strict=True)
    found = torch.autograd.grad(alpha * clean + (1 - alpha) * adversarial, params)
    return {name: grad.numpy() for name, grad in zip(names, found, strict=True)}


RULES: list[Callable[[bool], Rule]] = [
    lambda d: ScaledGradient(0.4, differentiable=d),
    lambda d: ScaledGradient(0.4, norm="none", differentiable=d),
    lambda d: Rotation(0.4, differentiable=d),
]


def smooth() -> nn.Sequential:
    """A smooth network with BatchNorm, so that crafting in eval mode differs."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(6, 7), nn.BatchNorm1d(7, momentum=0.0), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()  # fmt: skip
    with torch.no_grad():
        net[1].running_mean.uniform_(-1, 1)
        net[1].running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize("at", [0, 3], ids=["input", "hidden"])
@pytest.mark.parametrize("build", RULES, ids=["scaled", "gradient", "rotation"])
def test_differentiable_perturbation(alpha: float, crafting: str, at: int, build: Callable[[bool], Rule]) -> None:
    net, batch = smooth(), data()
    rule = build(True)
    site = InputSite(rule) if at == 0 else LayerSite(net[at - 1], "it", rule)
    found = gradients(net, batch, [site], alpha, passes=Passes(crafting=crafting))  # type: ignore[arg-type]
    assert_equal(found, reference(net, batch, alpha, rule, at, crafting=crafting))
    constant = reference(net, batch, alpha, rule, at, constant=True, crafting=crafting)
    assert max(np.abs(found[name] - constant[name]).max() for name in found) > 1e-4
    site.rule = build(False)
    fixed = gradients(net, batch, [site], alpha, passes=Passes(crafting=crafting))  # type: ignore[arg-type]
    assert_equal(fixed, constant)


# Refusals


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.layer(x)))


class Gives(nn.Module):
    """Has a layer whose output is `change(h)`."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.below = nn.Linear(6, 6)
        self.layer = nn.Identity()
        self.head = nn.Linear(6, 3)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        h = self.below(x)
        self.layer(self.change(h))
        return self.head(h)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.below, self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(lambda h: self.layer(h).tanh(), self.below(x), use_reentrant=self.reentrant))


class NoGrad(Twice):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.layer(x)
        return self.head(h)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Twice(), r"'it'.*once"),
        (Gives(lambda h: (h, h)), r"'it'.*tuple"),
        (Gives(lambda h: h.argmax(1)), r"'it'.*torch\.int64"),
        (Gives(lambda h: h.t()), r"'it'.*\[6, 8\].* 8"),
        (Gives(lambda h: h.sum()), r"'it'.*\[\].* 8"),
        (Checkpointed(False), r"'it'.*torch\.utils\.checkpoint"),
        (Checkpointed(True), r"'it'.*torch\.utils\.checkpoint"),
        (NoGrad(), r"'it'.*torch\.no_grad"),
    ],
)
@pytest.mark.parametrize("rule", [FGSM(0.1), FGSM(0.1, bounds=(0, 1))], ids=["FGSM", "clipped"])
def test_refuses_ambiguous_output(net: nn.Module, expected: str, rule: Rule) -> None:
    site = LayerSite(net.layer, "it", rule)
    x, y = data()
    with pytest.raises(ValueError, match=expected):
        adversarial_objective(net.double(), x, y, loss_fn=F.cross_entropy, sites=[site], alpha=0.5)
    assert not net.layer._forward_hooks


def test_layer_around_a_checkpoint() -> None:
    def build(checkpointed: bool) -> nn.Sequential:
        torch.manual_seed(2)
        inner: nn.Module = Checkpointed(False)
        if not checkpointed:
            inner.forward = lambda x: inner.head(inner.layer(inner.below(x)).tanh())  # type: ignore[method-assign]
        return nn.Sequential(inner, nn.Tanh(), nn.Linear(3, 3)).double()

    plain, checkpointed = (
        gradients(net, data(), [LayerSite(net[0], "0", FGSM(0.1))]) for net in (build(False), build(True))
    )
    assert_equal(checkpointed, plain, 0)


def test_names_an_unreached_layer() -> None:
    site = LayerSite(nn.Linear(1, 1), "aside", FGSM(0.1))
    with pytest.raises(RuntimeError, match="'aside'"):
        adversarial_objective(linear(6, 3), *data(), loss_fn=F.cross_entropy, sites=[site], alpha=0.5)
