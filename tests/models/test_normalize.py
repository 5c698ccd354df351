from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import nn

from adv_lightning.models import Normalize, Normalized, SoftmaxRegression

MEAN, STD = [0.25, 0.5, -1.0], [0.5, 2.0, 4.0]


def test_value_and_gradient_per_channel() -> None:
    # The chain rule keeps eps in pixels: grad_x = grad_z / std.
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    z = Normalize(MEAN, STD)(x)
    z.backward(upstream)
    assert x.grad is not None
    for c in range(3):
        torch.testing.assert_close(z[:, c], (x[:, c] - MEAN[c]) / STD[c])
        torch.testing.assert_close(x.grad[:, c], upstream[:, c] / STD[c])


def test_single_image() -> None:
    layer, x = Normalize(MEAN, STD), torch.rand(2, 3, 4, 4)
    assert torch.equal(layer(x[1]), layer(x)[1])


def test_buffers() -> None:
    layer = Normalize(MEAN, STD)
    assert not list(layer.parameters())
    other = Normalize([0.0] * 3, [1.0] * 3)
    other.load_state_dict(layer.state_dict())
    x = torch.rand(1, 3, 2, 2)
    assert torch.equal(other(x), layer(x))
    assert layer.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def test_refuses_other_channels() -> None:
    for shape in ((2, 1, 4, 4), (3, 4), (3, 3)):
        with pytest.raises(ValueError, match=r"\[\.\.\., 3, H, W\]"):
            Normalize(MEAN, STD)(torch.rand(shape))


@pytest.mark.parametrize(
    ("mean", "std", "facts"),
    [
        ([0.5], [0.0], "std.*greater than 0"),
        ([0.5], [-1.0], r"std=\[-1.0\]"),
        ([0.5], [math.inf], "finite"),
        ([math.nan], [1.0], "finite"),
        ([0.5, 0.5], [1.0], "2 and 1"),
        ([], [], "0 and 0"),
    ],
)
def test_refuses_bad_arguments(mean: list[float], std: list[float], facts: str) -> None:
    with pytest.raises(ValueError, match=facts):
        Normalize(mean, std)


def test_normalized_backbone() -> None:
    backbone = SoftmaxRegression(5, (3, 4, 4), zero_init=False)
    model = Normalized(backbone, MEAN, STD)
    x = torch.rand(2, 3, 4, 4)
    expected = nn.Sequential(Normalize(MEAN, STD), backbone)(x)
    assert torch.equal(model(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)
    assert list(model.parameters()) == list(backbone.parameters())
