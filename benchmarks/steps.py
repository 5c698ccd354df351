"""One training step of the mixed loss: who takes it, and how long that takes."""

# mypy: disable-error-code="no-untyped-call"
# torch leaves `backward` untyped, and this is the code that people write.

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, InputSite, adversarial_objective
from benchmarks import peers
from benchmarks.nets import CONVNET, MAXOUT_240, MAXOUT_1600, RESNET, TINY, Net
from benchmarks.peers import ALPHA, EPS, Action
from benchmarks.report import Bar, Section, Table
from benchmarks.timing import Run, Spread, figure, interleaved

Step = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], object]
Maker = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], Action]


def clean(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """Plain training, by hand: one forward and one backward pass."""
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


def hand(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """The mixed loss, by hand: the clean backward pass gives the input's gradient too."""
    optimizer.zero_grad()
    x = x.detach().requires_grad_()
    (ALPHA * F.cross_entropy(net(x), y)).backward()
    assert x.grad is not None
    x_adv = x.detach() + EPS * x.grad.sign()
    ((1 - ALPHA) * F.cross_entropy(net(x_adv), y)).backward()
    optimizer.step()


def ours(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """The mixed loss, by this project."""
    optimizer.zero_grad()
    sites = [InputSite(FGSM(EPS))]
    adversarial_objective(net, x, y, loss_fn=F.cross_entropy, sites=sites, alpha=ALPHA).total.backward()
    optimizer.step()


def naive(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """The mixed loss, by hand, in three forward and three backward passes: craft, clean, adversarial."""
    x_crafted = x.detach().requires_grad_()
    F.cross_entropy(net(x_crafted), y).backward()
    assert x_crafted.grad is not None
    x_adv = x + EPS * x_crafted.grad.sign()
    optimizer.zero_grad()
    (ALPHA * F.cross_entropy(net(x), y)).backward()
    ((1 - ALPHA) * F.cross_entropy(net(x_adv), y)).backward()
    optimizer.step()


def by_hand(step: Step) -> Maker:
    """Return what binds a step to a network, its optimizer and a batch."""
    return lambda *args: partial(step, *args)


OURS = "adv_lightning"
CONTESTANTS: dict[str, Maker] = {
    "clean, by hand": by_hand(clean),
    "mixed, by hand": by_hand(hand),
    OURS: by_hand(ours),
    "naive, by hand": by_hand(naive),
    "torchattacks": peers.torchattacks,
    "foolbox": peers.foolbox,
    "ART": peers.art,
}
NETS = [MAXOUT_240, MAXOUT_1600, CONVNET, RESNET]
LIMITS = {"naive, by hand": 0.80, "torchattacks": 0.90, "foolbox": 0.75}
"""The most that a step of this project may cost, over others."""


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of every contestant."""
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)


def bound(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Action]:
    """Give each contestant its own copy of the network and an optimizer; leave out what is not installed."""
    actions = {}
    for name, make in CONTESTANTS.items():
        own = copy.deepcopy(net)
        with suppress(ModuleNotFoundError):
            actions[name] = make(own, sgd(own), x, y)
    return actions


def measure(run: Run) -> Section:
    """Time a step of every network and contestant."""
    nets = [TINY] if run.quick else NETS
    columns = [f"{net.name}, batch {net.shape[0]}" for net in nets]
    times, ratios = Table(["ms a step", *columns]), Table([f"{OURS} over", *columns])
    section = Section("A training step", [times, ratios], [NOTE])
    found = [_measure_net(run, net, section) for net in nets]
    for name in CONTESTANTS:
        if any(name not in spreads for spreads in found):
            times.rows.append([name, *["not installed"] * len(nets)])
            continue
        times.rows.append([name, *(spreads[name].show(1e3) for spreads in found)])
        if name != OURS:
            ratios.rows.append([name, *(figure(spreads[OURS].over(spreads[name])) for spreads in found)])
    return section


def _measure_net(run: Run, net: Net, section: Section) -> dict[str, Spread]:
    actions = bound(net.made(run.device), *net.batch(run.device))
    found = interleaved({name: run.timed(action) for name, action in actions.items()}, run.rounds_of(net.rounds))
    section.raw |= {f"{net.name}: {name}": spread for name, spread in found.items()}
    limits = {} if net.bar is None else {"mixed, by hand": net.bar} | LIMITS
    section.bars += [
        Bar(f"step of {net.name}: {OURS} / {name}", found[OURS].over(found[name]), limit)
        for name, limit in limits.items()
        if name in found
    ]
    return found


NOTE = """\
Every contestant trains its own copy of the same network on the same batch with SGD (momentum 0.5); FGSM of eps 0.25, \
alpha 0.5. By hand, mixed: forward and backward on the clean batch, which gives the input's gradient and half of the \
parameters', then forward and backward on the perturbed batch. Naive: a full forward and backward pass to craft, \
another for each half. torchattacks and foolbox only attack, so the loop is the user's: the sum of both losses, one \
backward call. Both clip to [0, 1] and craft in eval mode, so without dropout and with BatchNorm's running \
statistics, and switch modes each step. torchattacks differentiates by the input alone; foolbox by the parameters \
too, and judges what it made in one more forward pass. ART's AdversarialTrainer (ratio 0.5) does less: it replaces \
half of the batch by adversarial examples in place of adding a second batch, so it crafts (in eval mode) for half as \
many examples and trains on half as many as the others. Each call of its `fit` is here one batch."""
