from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adv_lightning.models import SmallConvNet


def test_any_small_image() -> None:
    for shape in ((1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 5, 4)):
        model = SmallConvNet(5, shape, width=4)
        x = torch.rand(3, *shape)
        assert model.train()(x).shape == (3, 5)
        model.eval()
        torch.testing.assert_close(model(x)[:1], model(x[:1]))  # in eval no example sees another


def test_parameter_count() -> None:
    # Weights of the convolutions, two numbers for each BatchNorm channel, the linear layer.
    convolutions = 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
    assert sum(p.numel() for p in SmallConvNet().parameters()) == convolutions + 2 * 2 * 224 + 128 * 10 + 10


def test_every_parameter_and_pixel_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = SmallConvNet(width=4)
    x = torch.rand(4, 1, 28, 28, requires_grad=True)
    F.cross_entropy(model(x), torch.arange(4)).backward()
    for name, p in model.named_parameters():
        assert torch.count_nonzero(p.grad), name
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.9


def test_learns_a_batch() -> None:
    torch.manual_seed(0)
    model = SmallConvNet(4, (1, 8, 8), width=8)
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert torch.equal(model(x).argmax(1), y)


def test_refuses_images_too_small_for_pooling() -> None:
    with pytest.raises(ValueError, match=r"at least 4.*\(1, 3, 28\)"):
        SmallConvNet(10, (1, 3, 28))
