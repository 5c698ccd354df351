from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, SingleStepAttack
from adv_lightning.attacks import input_gradient


def linear(classes: int, features: int = 9) -> nn.Linear:
    torch.manual_seed(classes)
    layer = nn.Linear(features, classes).double()
    with torch.no_grad():
        layer.weight[:, 2] = 0  # a pixel that no class uses
    return layer


@pytest.mark.parametrize("eps", [0.25, "8/255"])
def test_equals_the_closed_form_on_softmax_regression(eps: float | str) -> None:
    net = linear(4)
    x, y = torch.randn(20, 9, dtype=torch.float64), torch.randint(4, (20,))
    weight, bias = net.weight.detach(), net.bias.detach()
    grad = ((x @ weight.T + bias).softmax(1) - F.one_hot(y, 4)) @ weight
    size = 0.25 if eps == 0.25 else 8 / 255
    x_adv = FGSM(eps)(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(x_adv, x + size * grad.sign())
    assert torch.equal(x_adv[:, 2], x[:, 2])
    moved = (x_adv - x).abs()[:, grad[0] != 0]
    torch.testing.assert_close(moved, torch.full_like(moved, size), rtol=0, atol=1e-15)


def test_equals_the_closed_form_with_two_classes() -> None:
    net = linear(2)
    x, y = torch.randn(20, 9, dtype=torch.float64), torch.randint(2, (20,))
    # Towards the other class, for any x: sign(w_other - w_own).
    towards = (net.weight[1] - net.weight[0]).detach().sign()
    expected = x + 0.1 * torch.where(y[:, None] == 0, towards, -towards)
    assert torch.equal(FGSM(0.1)(net, x, y, loss_fn=F.cross_entropy), expected)


def test_clips_to_its_bounds() -> None:
    net = linear(3)
    x, y = torch.rand(50, 9, dtype=torch.float64), torch.randint(3, (50,))
    free = FGSM(0.3)(net, x, y, loss_fn=F.cross_entropy)
    held = FGSM(0.3, bounds=(0, 1))(net, x, y, loss_fn=F.cross_entropy)
    assert free.min() < 0
    assert free.max() > 1
    assert torch.equal(held, free.clamp(0, 1))


class Infinite(nn.Module):
    """Its gradient is infinite where x is zero, and 0 * inf = NaN where the weight is zero as well."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2).double()
        with torch.no_grad():
            self.linear.weight[:] = torch.tensor([[1.0, 1.0, 0.0, 1.0], [-1.0, -1.0, 0.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.sqrt())


def test_pixels_without_a_finite_gradient_stay() -> None:
    x = torch.tensor([[0.5, 0.0, 0.0, 0.5], [0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    y = torch.tensor([0, 0])
    leaf = x.clone().requires_grad_()
    (raw,) = torch.autograd.grad(F.cross_entropy(Infinite()(leaf), y), leaf)
    assert raw[0, 1].isinf()
    assert raw[0, 2].isnan()
    moved = FGSM(0.1)(Infinite(), x, y, loss_fn=F.cross_entropy) - x
    assert moved[0].tolist() == pytest.approx([-0.1, 0, 0, -0.1])
    assert moved[1].tolist() == pytest.approx([-0.1, -0.1, 0, -0.1])


class Recorder(SingleStepAttack):
    """Keeps the gradient that it gets."""

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        self.grad = grad
        return value


def test_rule_gets_each_examples_own_gradient() -> None:
    net = nn.Sequential(linear(5), nn.Tanh(), linear(3, 5))
    x, y = torch.randn(6, 9, dtype=torch.float64), torch.randint(3, (6,))
    rule = Recorder()
    rule(net, x, y, loss_fn=F.cross_entropy)
    for i in range(6):
        leaf = x[i : i + 1].clone().requires_grad_()
        (own,) = torch.autograd.grad(F.cross_entropy(net(leaf), y[i : i + 1]), leaf)
        torch.testing.assert_close(rule.grad[i : i + 1], own, rtol=1e-12, atol=1e-14)


class Shift(SingleStepAttack):
    needs_grad = False

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is None
        return value + 1


def test_rule_without_gradient_runs_no_network() -> None:
    def model(x: Tensor) -> Tensor:
        raise AssertionError("the network ran")

    x = torch.zeros(2, 3)
    assert torch.equal(Shift()(model, x, torch.zeros(2), loss_fn=F.cross_entropy), x + 1)


def test_input_gradient_returns_the_clean_pass() -> None:
    net = linear(3)
    x, y = torch.randn(6, 9, dtype=torch.float64), torch.randint(3, (6,))
    found = input_gradient(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(found.logits, net(x))
    assert torch.equal(found.loss, F.cross_entropy(net(x), y))
    assert [part.requires_grad for part in found] == [False, False, False]


@pytest.mark.parametrize("eps", [-0.1, -1, math.nan, math.inf, True, "abc", "1/0", "-8/255", "8//255", "nan", "", None])
def test_refuses_bad_eps(eps: object) -> None:
    with pytest.raises(ValueError, match=r"^eps=") as raised:
        FGSM(eps)  # type: ignore[arg-type]
    assert f"eps={eps!r}:" in str(raised.value)


@pytest.mark.parametrize("bounds", [(1, 0), (1, 1), (math.nan, 1)])
def test_refuses_bounds_that_do_not_increase(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="bounds=") as raised:
        FGSM(0.1, bounds=bounds)
    assert repr(bounds) in str(raised.value)


@pytest.mark.parametrize(
    ("eps", "size"), [("8/255", 8 / 255), ("0.5", 0.5), (0, 0.0), ("1e-3", 1e-3), (" 1 / 4 ", 0.25)]
)
def test_reads_numbers_and_fractions(eps: float | str, size: float) -> None:
    assert FGSM(eps).eps == size


def test_empty_batch_in_half_precision() -> None:
    net = nn.Linear(3, 2).half()
    x = torch.empty(0, 3, dtype=torch.float16)
    assert FGSM(0.1)(net, x, torch.empty(0, dtype=torch.int64), loss_fn=F.cross_entropy).shape == (0, 3)
