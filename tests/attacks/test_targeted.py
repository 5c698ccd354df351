from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import LogisticLoss, SigmoidLoss, TargetedFGSM
from adv_lightning.losses import Loss
from tests.support.helpers import Counter, mlp


def linear(classes: int) -> nn.Linear:
    torch.manual_seed(classes)
    return nn.Linear(9, classes).double()


def data(classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(20, 9, generator=generator, dtype=torch.float64), torch.arange(20) % classes


@pytest.mark.parametrize("target", [0, 3])
def test_equals_the_closed_form_on_softmax_regression(target: int) -> None:
    net, (x, y) = linear(4), data(4)
    grad = (net(x).softmax(1) - F.one_hot(torch.tensor(target), 4)).detach() @ net.weight.detach()
    found = TargetedFGSM(0.25, target)(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(found, x - 0.25 * grad.sign())
    before, after = (F.cross_entropy(net(each), torch.full((20,), target), reduction="none") for each in (x, found))
    assert (after < before).all()


def test_two_classes_give_one_step_for_all() -> None:
    net, (x, y) = linear(2), data(2)
    found = TargetedFGSM(0.1, 1)(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(found, x + 0.1 * (net.weight[1] - net.weight[0]).detach().sign())


def test_ignores_the_labels() -> None:
    net, (x, y) = linear(4), data(4)
    found = [TargetedFGSM(0.25, 2)(net, x, each, loss_fn=F.cross_entropy) for each in (y, 3 - y)]
    assert torch.equal(*found)


def test_is_independent_of_batches() -> None:
    net, (x, y) = mlp(features=9).eval(), data(3)
    attack = TargetedFGSM(0.1, 2)
    parts = [attack(net, x[i : i + 7], y[i : i + 7], loss_fn=F.cross_entropy) for i in range(0, 20, 7)]
    assert torch.equal(torch.cat(parts), attack(net, x, y, loss_fn=F.cross_entropy))


@pytest.mark.parametrize(("loss_fn", "outputs"), [(LogisticLoss(), 1), (SigmoidLoss(), 4)], ids=str)
@pytest.mark.parametrize("target", [0, 1])
def test_lowers_other_losses_too(loss_fn: Loss, outputs: int, target: int) -> None:
    net, (x, y) = linear(outputs), data(2)
    found = TargetedFGSM(0.01, target)(net, x, y, loss_fn=loss_fn)
    to = torch.full((1,), target)
    assert all(loss_fn(net(b[None]), to) < loss_fn(net(a[None]), to) for a, b in zip(x, found, strict=True))


def test_clips_to_its_bounds() -> None:
    net, (x, y) = linear(3), data(3)
    free, held = (TargetedFGSM(0.25, 1, b)(net, x, y, loss_fn=F.cross_entropy) for b in (None, (-1, 1)))
    assert free.max() > 1
    assert torch.equal(held, free.clamp(-1, 1))


def test_takes_one_forward_and_one_backward_pass() -> None:
    net, (x, y) = mlp(features=9), data(3)
    counter = Counter(net[0])
    TargetedFGSM(0.1, 1)(net, x, y, loss_fn=F.cross_entropy)
    assert (counter.forward, counter.backward) == (1, 1)


@pytest.mark.parametrize(("outputs", "classes", "loss_fn"), [(3, 3, F.cross_entropy), (1, 2, LogisticLoss())])
def test_refuses_unknown_classes(outputs: int, classes: int, loss_fn: Loss) -> None:
    net, (x, y) = linear(outputs), data(2)
    with pytest.raises(ValueError, match=f"target={classes}.*{classes} classes.*from 0 to {classes - 1}"):
        TargetedFGSM(0.1, classes)(net, x, y, loss_fn=loss_fn)


def test_refuses_negative_classes() -> None:
    with pytest.raises(ValueError, match="target=-1"):
        TargetedFGSM(0.1, -1)
