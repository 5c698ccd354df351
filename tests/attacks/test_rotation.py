from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adv_lightning import Rotation
from tests.support.helpers import mlp

ANGLES = [0.0, 1e-3, 0.1, 1.0, math.pi / 2, 3.0, math.pi]


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    value, grad = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return value, grad


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Kahan's formula, exact at both ends of the range, unlike an arccosine."""
    a, b = (each.double().unsqueeze(1).flatten(1) for each in (a, b))
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("shape", [(5, 2), (5, 784), (5, 3, 4, 4)])
@pytest.mark.parametrize("size", [1.0, 1e-150])
def test_turns_by_the_angle_in_the_plane_and_keeps_the_norm(angle: float, shape: tuple[int, ...], size: float) -> None:
    value, grad = pair(shape)
    found = Rotation(angle).step(size * value, size * grad) / size
    norm = value.view(5, -1).norm(dim=1)
    torch.testing.assert_close(found.view(5, -1).norm(dim=1), norm, rtol=1e-12, atol=0)
    turned = angle_between(found, value)
    torch.testing.assert_close(turned, torch.full_like(turned, angle), rtol=0, atol=1e-12)
    # Nothing leaves the plane of x and g, and the turn is towards g.
    plane = torch.stack([value.view(5, -1), grad.view(5, -1)], dim=2)
    residual = found.view(5, -1, 1) - plane @ torch.linalg.lstsq(plane, found.view(5, -1, 1)).solution
    assert residual.abs().max() < 1e-12
    if 0 < angle < math.pi:
        moved = (found - math.cos(angle) * value).view(5, -1)
        assert ((moved * grad.view(5, -1)).sum(dim=1) > 0).all()


@pytest.mark.parametrize("angle", ANGLES)
def test_is_exact_in_float32(angle: float) -> None:
    value, grad = pair((50, 784), torch.float32)
    found = Rotation(angle).step(value, grad)
    torch.testing.assert_close(found.double().norm(dim=1), value.double().norm(dim=1), rtol=1e-6, atol=0)
    turned = angle_between(found, value)
    torch.testing.assert_close(turned, torch.full_like(turned, angle), rtol=0, atol=1e-6)


def test_equals_the_rotation_matrix_in_the_plane() -> None:
    value = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    grad = torch.tensor([[5.0, 7.0], [0.1, -9.0]], dtype=torch.float64)
    c, s = math.cos(0.3), math.sin(0.3)
    expected = torch.tensor([[2 * c, 2 * s], [3 * s, 3 * c]], dtype=torch.float64)
    torch.testing.assert_close(Rotation(0.3).step(value, grad), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("distance", [1e-1, 1e-5, 1e-9, 1e-12])
def test_is_exact_near_the_parallel(distance: float) -> None:
    value, off = pair((20, 784))
    found = Rotation(0.4).step(value, value + distance * off)
    torch.testing.assert_close(found.norm(dim=1), value.norm(dim=1), rtol=1e-12, atol=0)
    turned = angle_between(found, value)
    torch.testing.assert_close(turned, torch.full_like(turned, 0.4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_plane_nothing_moves(dtype: torch.dtype) -> None:
    value, grad = pair((200, 784), dtype)
    factor = torch.linspace(-3, 3, 198, dtype=dtype).unsqueeze(1)
    value[0], grad[1], grad[2:] = 0, 0, factor * value[2:]
    assert torch.equal(Rotation(0.4).step(value, grad), value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_dtype_and_norm(dtype: torch.dtype) -> None:
    value, grad = pair((5, 784), dtype)
    found = Rotation(0.4).step(value, grad.float())
    assert found.dtype == dtype
    torch.testing.assert_close(found.float().norm(dim=1), value.float().norm(dim=1), rtol=1e-2, atol=0)
    torch.testing.assert_close(angle_between(found, value), torch.full((5,), 0.4).double(), rtol=0, atol=1e-2)


def test_is_independent_of_batches_and_increases_the_loss() -> None:
    net, x, y = mlp().eval(), pair((12, 6))[0], torch.arange(12) % 3
    whole = Rotation(0.05)(net, x, y, loss_fn=F.cross_entropy)
    parts = [Rotation(0.05)(net, x[i : i + 5], y[i : i + 5], loss_fn=F.cross_entropy) for i in range(0, 12, 5)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-14)
    before, after = (F.cross_entropy(net(each), y, reduction="none") for each in (x, whole))
    assert (after > before).all()


@pytest.mark.parametrize("angle", [0.4, 2.0])
def test_is_twice_differentiable(angle: float) -> None:
    value, grad = (each.requires_grad_() for each in pair((3, 2, 2)))
    rule = Rotation(angle, differentiable=True)
    assert torch.autograd.gradcheck(rule.step, (value, grad))
    assert torch.autograd.gradgradcheck(rule.step, (value, grad))


def test_is_twice_differentiable_with_zeros() -> None:
    value, grad = pair((4, 5))
    value = value.relu().requires_grad_()
    assert torch.autograd.gradgradcheck(Rotation(0.4).step, (value, grad.requires_grad_()))


def test_degenerate_examples_have_finite_derivatives() -> None:
    value, grad = pair((6, 4))
    value[0], grad[1], grad[2], grad[3], value[4], grad[4] = 0, 0, value[2], -2 * value[3], 0, 0
    value[5], grad[5] = torch.tensor([1, 0, 0, 0]), torch.tensor([1, 1e-310, 0, 0])
    leaves = value.requires_grad_(), grad.requires_grad_()
    found = Rotation(0.4, differentiable=True).step(*leaves)
    assert torch.equal(found, value)
    first = torch.autograd.grad(found.square().sum() + found.sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), leaves)
    assert all(each.isfinite().all() for each in (*first, *second))


def test_attack_is_detached() -> None:
    x, y = pair((12, 6))[0], torch.arange(12) % 3
    assert not Rotation(0.4, differentiable=True)(mlp(), x, y, loss_fn=F.cross_entropy).requires_grad


@pytest.mark.parametrize("angle", [-0.1, 3.2, 45, math.nan])
def test_refuses_bad_angles(angle: float) -> None:
    with pytest.raises(ValueError, match=f"angle={angle}:"):
        Rotation(angle)
