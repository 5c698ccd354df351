"""Square: what it changes, that it finds what exists, and that it depends on the seed and the example alone."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, LogisticLoss, Square
from adv_lightning.attacks.margin import margin, margin_loss


def line(features: int = 6, classes: int = 3) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(features, classes).double().eval()


def right(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).argmax(1)


def data(n: int = 40, *shape: int) -> Tensor:
    return torch.rand(n, *(shape or (6,)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def images() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4)).double().eval()
    return net, data(20, 2, 6, 6)


def test_margin_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    assert margin(logits, torch.tensor([0, 1, 0])).tolist() == [1.0, -2.0, 0.0]
    for one in (torch.tensor([2.0, -3.0]), torch.tensor([[2.0], [-3.0]])):
        assert margin(one, torch.tensor([1, 1])).tolist() == [2.0, -3.0]
        assert margin(one, torch.tensor([0, 0])).tolist() == [-2.0, 3.0]
    assert margin_loss(logits, torch.tensor([0, 1, 0])) == pytest.approx(1 / 3)


def test_stays_in_the_ball_and_the_bounds() -> None:
    net, x = images()
    x_adv = Square(0.2, 50, (0.1, 0.9))(net, x.clamp(0.1, 0.9), right(net, x.clamp(0.1, 0.9)), loss_fn=F.cross_entropy)
    assert (x_adv - x.clamp(0.1, 0.9)).abs().max() <= 0.2 + 1e-12
    assert x_adv.min() >= 0.1
    assert x_adv.max() <= 0.9
    unclipped = Square(0.2, 1)(net, x, right(net, x), loss_fn=F.cross_entropy)
    # One query: stripes of a pixel's width, eps up or down.
    change = (unclipped - x).round(decimals=12)
    assert change.abs().unique().tolist() == [0.2]
    assert (change == change[:, :, :1]).all()


def test_never_makes_the_right_answer_surer_after_its_start() -> None:
    net, x = images()
    y = right(net, x)
    margins = [margin(net(Square(0.05, n)(net, x, y, loss_fn=F.cross_entropy)), y) for n in (1, 5, 40)]
    # The windows of a longer search shrink later, so only the search itself can be compared with its start.
    for later in margins[1:]:
        assert (later <= margins[0] + 1e-12).all()
    assert (margins[2] < margins[0]).any()


def test_finds_nearly_what_exists_on_a_linear_net() -> None:
    net, x = line(20, 2), data(400, 20)
    with torch.no_grad():
        net.bias.copy_(-net(data(400, 20)).mean(0))
    y = right(net, x)
    worst, found = (
        (right(net, attack(net, x, y, loss_fn=F.cross_entropy)) != y).double().mean().item()
        for attack in (FGSM(0.1), Square(0.1, 300))
    )
    assert 0.2 < worst < 0.95
    assert found <= worst + 1e-12  # FGSM is the worst case of a linear network
    assert found > 0.8 * worst


def test_leaves_mistakes_and_asks_only_about_the_others() -> None:
    net, x = line(), data()
    y = right(net, x)
    y[:10] = (y[:10] + 1) % 3
    sizes: list[int] = []
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    x_adv = Square(0.01, 3)(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(x_adv[:10], x[:10])
    assert sizes[:2] == [40, 30]
    assert len(sizes) <= 4


def test_depends_on_the_seed_and_the_example_alone() -> None:
    net, x = images()
    y = right(net, x)
    attack = Square(0.1, 30, seed=3)
    whole = attack(net, x, y, loss_fn=F.cross_entropy)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    parts = [attack(net, x[i : i + 3], y[i : i + 3], loss_fn=F.cross_entropy) for i in range(0, 20, 3)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)
    turned = attack(net, x.flip(0), y.flip(0), loss_fn=F.cross_entropy).flip(0)
    torch.testing.assert_close(turned, whole, rtol=0, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(Square(0.1, 30, seed=4)(net, x, y, loss_fn=F.cross_entropy), whole)


def test_draws_anew_in_training() -> None:
    net, x = line().train(), data()
    first, second = (Square(0.1, 2)(net, x, right(net, x), loss_fn=F.cross_entropy) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_single_logit(shape: tuple[int, ...]) -> None:
    net = line(6, 1)
    x = data()
    model = lambda x: net(x).view(len(x), *shape)  # noqa: E731
    y = (net(x).flatten() > 0).long()
    x_adv = Square(0.5, 60)(model, x, y, loss_fn=LogisticLoss())
    assert ((net(x_adv).flatten() > 0).long() != y).double().mean() > 0.5


def test_needs_no_gradient_and_says_so() -> None:
    net, x = line(), data()
    quantised = lambda x: net((4 * x).round() / 4)  # noqa: E731
    y = quantised(x).argmax(1)
    assert torch.equal(FGSM(0.2)(quantised, x, y, loss_fn=F.cross_entropy), x)
    assert (quantised(Square(0.2, 60)(quantised, x, y, loss_fn=F.cross_entropy)).argmax(1) != y).any()
    facts = Square(0.2).threat_model()
    assert (facts.uses_gradient, facts.uses_label) == (False, True)
    assert facts.ball is not None
    assert (facts.ball.norm_name, facts.ball.eps) == ("Linf", 0.2)


def test_an_empty_batch() -> None:
    net, x = line(), data()[:0]
    assert Square(0.1)(net, x, torch.zeros(0, dtype=torch.long), loss_fn=F.cross_entropy).shape == (0, 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"eps": -1}, "eps=-1"),
        ({"eps": 0.1, "queries": 0}, "queries=0: give at least 1"),
        ({"eps": 0.1, "bounds": (1, 0)}, "bounds=(1, 0)"),
    ],
)
def test_refuses(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Square(**arguments)  # type: ignore[arg-type]
