from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM
from adv_lightning.models import Ensemble, MaxoutMLP
from tests.support.helpers import Counter, mlp


def members(number: int = 3) -> list[nn.Sequential]:
    return [mlp(seed=seed) for seed in range(number)]


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(8) % 3


def test_softmax_is_the_mean_probability() -> None:
    x, _ = data()
    for number in (1, 3, 12):
        nets = members(number)
        mean = torch.stack([net(x).softmax(1) for net in nets]).mean(0)
        logits = Ensemble(nets)(x)
        torch.testing.assert_close(logits.softmax(1), mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(logits.exp(), mean, rtol=0, atol=1e-12)


def test_finite_if_members_are_sure_of_different_classes() -> None:
    nets = members(2)
    for net in nets:
        net[2].weight.data.mul_(1e6)
    x, y = data()
    x.requires_grad_()
    loss = F.cross_entropy(Ensemble(nets)(x), y)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


def test_attacks_on_it_and_on_a_member() -> None:
    nets, (x, y) = members(), data()
    ensemble = Ensemble(nets).eval()
    leaf = x.clone().requires_grad_()
    mean = torch.stack([net(leaf).softmax(1) for net in nets]).mean(0)
    (grad,) = torch.autograd.grad(F.nll_loss(mean.log(), y), leaf)
    whole = FGSM(0.1)(ensemble, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(whole, x + 0.1 * grad.sign())
    for i in range(3):
        one = FGSM(0.1)(ensemble.members[i], x, y, loss_fn=F.cross_entropy)
        assert torch.equal(one, FGSM(0.1)(nets[i], x, y, loss_fn=F.cross_entropy))
        assert not torch.equal(one, whole)
        assert F.cross_entropy(ensemble(whole), y) > F.cross_entropy(ensemble(one), y)


def test_mode() -> None:
    nets = [MaxoutMLP(3, (1, 2, 2), units=4) for _ in range(2)]
    ensemble = Ensemble([nets[0].eval(), nets[1].train()])
    assert all(module.training for module in ensemble.modules())
    assert not any(module.training for module in ensemble.eval().modules())
    assert not any(module.training for module in Ensemble(nets).modules())


def test_runs_every_member_once() -> None:
    nets, (x, _) = members(), data()
    counters = [Counter(net[0]) for net in nets]
    Ensemble(nets)(x)
    assert [counter.forward for counter in counters] == [1, 1, 1]


def test_state_dict() -> None:
    first, second = Ensemble(members()), Ensemble([mlp(seed=7) for _ in range(3)])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(data()[0]), second(data()[0]))


def test_refuses_no_members_and_different_classes() -> None:
    with pytest.raises(ValueError, match=r"members.*at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"same classes.*\[\[8, 3\], \[8, 4\]\]"):
        Ensemble([mlp(), mlp(classes=4)])(data()[0])
