from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adv_lightning import ScaledGradient
from adv_lightning.attacks import input_gradient
from adv_lightning.attacks.scaled_gradient import unit
from tests.support.helpers import mlp


def data(n: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 6, generator=generator, dtype=torch.float64), torch.arange(n) % 3


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 2, 3, 4)])
@pytest.mark.parametrize("size", [1, 1e-200, 1e200])
def test_has_length_eps_along_the_gradient(shape: tuple[int, ...], size: float) -> None:
    value, grad = torch.randn(shape, dtype=torch.float64), size * torch.randn(shape, dtype=torch.float64)
    moved = (ScaledGradient(0.5).step(value, grad) - value).view(5, -1)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((5,), 0.5, dtype=torch.float64), rtol=0, atol=1e-12)
    cosines = F.cosine_similarity(moved, (grad / size).view(5, -1))
    torch.testing.assert_close(cosines, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 1e-30, 1e-42, 1e30])
def test_gradients_of_any_size_in_float32(size: float) -> None:
    grad = size * torch.tensor([[3.0, 4.0]])
    moved = ScaledGradient(1).step(torch.zeros(1, 2), grad)
    torch.testing.assert_close(moved, torch.tensor([[0.6, 0.8]]), rtol=0, atol=1e-2 if size == 1e-42 else 1e-6)


def test_without_a_norm_adds_the_gradient() -> None:
    net, (x, y) = mlp().eval(), data()
    grad = input_gradient(net, x, y, loss_fn=F.cross_entropy).grad
    found = ScaledGradient(2, norm="none")(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(found, x + 2 * grad, rtol=0, atol=1e-15)


@pytest.mark.parametrize("attack", [ScaledGradient(0.1), ScaledGradient(0.1, "none")], ids=str)
def test_is_independent_of_batches_and_increases_the_loss(attack: ScaledGradient) -> None:
    net, (x, y) = mlp().eval(), data()
    whole = attack(net, x, y, loss_fn=F.cross_entropy)
    parts = [attack(net, x[i : i + 5], y[i : i + 5], loss_fn=F.cross_entropy) for i in range(0, 12, 5)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-14)
    before, after = (F.cross_entropy(net(each), y, reduction="none") for each in (x, whole))
    assert (after > before).all()


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_zero_gradient_changes_nothing(norm: str) -> None:
    value, grad = torch.rand(3, 4), torch.rand(3, 4)
    grad[1] = 0
    found = ScaledGradient(0.5, norm).step(value, grad)  # type: ignore[arg-type]
    assert torch.equal(found[1], value[1])
    assert not torch.equal(found[0], value[0])


def test_clips_to_its_bounds() -> None:
    net, (x, y) = mlp().eval(), data()
    free = ScaledGradient(2)(net, x, y, loss_fn=F.cross_entropy)
    assert free.min() < 0
    assert torch.equal(ScaledGradient(2, bounds=(0, 1))(net, x, y, loss_fn=F.cross_entropy), free.clamp(0, 1))


@pytest.mark.parametrize("value", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_dtype_and_length(value: torch.dtype) -> None:
    grad = 1e-6 * torch.randn(4, 100)
    found = ScaledGradient(1).step(torch.zeros(4, 100, dtype=value), grad)
    assert found.dtype == value
    torch.testing.assert_close(found.float().norm(dim=1), torch.ones(4), rtol=0, atol=1e-2)


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_is_twice_differentiable(norm: str) -> None:
    torch.manual_seed(0)
    value, grad = (torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    rule = ScaledGradient(0.5, norm, differentiable=True)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(rule.step, (value, grad))
    assert torch.autograd.gradgradcheck(rule.step, (value, grad))


def test_zero_gradient_has_finite_derivatives() -> None:
    value, grad = (torch.zeros(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = ScaledGradient(0.5, differentiable=True).step(value, grad)
    first = torch.autograd.grad(found.square().sum() + found.sum(), (value, grad), create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), (value, grad))
    assert all(each.isfinite().all() for each in (*first, *second))
    assert torch.equal(first[1], torch.zeros(2, 3))


def test_derivative_of_unit_is_the_projection() -> None:
    vector = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(unit, vector)[0, :, 0]
    u = torch.tensor([0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(jacobian, (torch.eye(2) - torch.outer(u, u)) / 5, rtol=0, atol=1e-15)


def test_attack_is_detached() -> None:
    net, (x, y) = mlp(), data()
    assert not ScaledGradient(0.5, differentiable=True)(net, x, y, loss_fn=F.cross_entropy).requires_grad


def test_refuses_other_norms() -> None:
    with pytest.raises(ValueError, match="norm='linf': give one of l2, none"):
        ScaledGradient(0.1, norm="linf")  # type: ignore[arg-type]
