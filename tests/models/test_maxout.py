from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from adv_lightning.models import InputDropout, Maxout, MaxoutMLP


def naive_maxout(layer: Maxout, x: torch.Tensor, upstream: torch.Tensor) -> dict[str, torch.Tensor]:
    """The formula in loops: values, and the gradients of sum(upstream * y)."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    y = torch.empty(len(x), layer.units, dtype=torch.float64)
    grad = {"x": torch.zeros_like(x), "weight": torch.zeros_like(weight), "bias": torch.zeros_like(bias)}
    for b in range(len(x)):
        for u in range(layer.units):
            rows = [p * layer.units + u for p in range(layer.pieces)]
            scores = [math.fsum((weight[r] * x[b]).tolist()) + bias[r].item() for r in rows]
            best = rows[max(range(layer.pieces), key=scores.__getitem__)]
            y[b, u] = max(scores)
            grad["x"][b] += upstream[b, u] * weight[best]
            grad["weight"][best] += upstream[b, u] * x[b]
            grad["bias"][best] += upstream[b, u]
    return {"y": y, **grad}


def test_maxout_equals_loops() -> None:
    torch.manual_seed(0)
    for features, units, pieces in ((7, 4, 3), (5, 1, 4), (6, 5, 1)):
        layer = Maxout(features, units, pieces).double()
        x = torch.randn(9, features, dtype=torch.float64, requires_grad=True)
        upstream = torch.randn(9, units, dtype=torch.float64)
        y = layer(x)
        y.backward(upstream)
        expected = naive_maxout(layer, x.detach(), upstream)
        torch.testing.assert_close(y, expected["y"])
        torch.testing.assert_close(x.grad, expected["x"])
        torch.testing.assert_close(layer.weight.grad, expected["weight"])
        torch.testing.assert_close(layer.bias.grad, expected["bias"])


def test_maxout_takes_leading_dimensions() -> None:
    layer = Maxout(6, 3, 2)
    x = torch.randn(2, 5, 6)
    assert layer(x).shape == (2, 5, 3)
    torch.testing.assert_close(layer(x), layer(x.flatten(0, 1)).view(2, 5, 3))
    torch.testing.assert_close(layer(x[0, 0]), layer(x)[0, 0])


def test_maxout_rows_are_pieces() -> None:
    # Rows of norm 1 give each linear piece a gradient of norm 1.
    layer = Maxout(8, 4, 3).double()
    assert layer.weight.shape == (12, 8)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight /= layer.weight.norm(dim=1, keepdim=True)
    x = torch.randn(8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)
    torch.testing.assert_close(jacobian.norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_maxout_tied_pieces_share_the_gradient() -> None:
    layer = Maxout(3, 2, 4)
    nn.init.zeros_(layer.bias)
    x = torch.zeros(1, 3, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((8,), 0.25))
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], layer.weight.view(4, 2, 3).mean(0).sum(0))


def test_maxout_refuses_no_units() -> None:
    with pytest.raises(ValueError, match=r"Maxout: units.*1.*0"):
        Maxout(4, 0, 2)


def test_input_dropout_keeps_values_unscaled() -> None:
    torch.manual_seed(0)
    n = 200_000
    x = torch.rand(2, n // 2) + 1
    out = InputDropout(0.2).train()(x)
    kept = out != 0
    assert torch.equal(out[kept], x[kept])
    # Their number is binomial (n, .8): within 5 standard deviations, which one draw in 1.7 million leaves.
    assert abs(kept.sum().item() - 0.8 * n) < 5 * math.sqrt(n * 0.8 * 0.2)


def test_input_dropout_draws_from_the_global_generator() -> None:
    layer, x = InputDropout(0.5), torch.ones(64)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_input_dropout_is_identity_in_eval_and_at_zero() -> None:
    x = torch.randn(5, 5)
    state = torch.get_rng_state()
    assert InputDropout(0.5).eval()(x) is x
    assert InputDropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    assert not InputDropout(1.0)(x).any()


def test_input_dropout_keeps_dtype_and_share() -> None:
    torch.manual_seed(0)
    # Draws made in bfloat16 would keep .798, at this n nine standard deviations from .8.
    sizes = {torch.bfloat16: 4_000_000, torch.float16: 200_000, torch.float32: 200_000, torch.float64: 200_000}
    for dtype, n in sizes.items():
        out = InputDropout(0.2)(torch.ones(n, dtype=dtype))
        assert out.dtype == dtype
        assert abs(out.count_nonzero().item() - 0.8 * n) < 5 * math.sqrt(n * 0.8 * 0.2)


def test_input_dropout_gradient_is_the_mask() -> None:
    x = torch.randn(100, requires_grad=True)
    out = InputDropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, (out != 0).float())


def test_input_dropout_refuses_bad_p() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        InputDropout(20)


def test_mlp_default_is_the_net_of_the_paper() -> None:
    model = MaxoutMLP()
    count = (784 * 1200 + 1200) + (240 * 1200 + 1200) + (240 * 10 + 10)
    assert sum(p.numel() for p in model.parameters()) == count == 1_233_610
    assert [name for name, _ in model.net.named_children()] == [
        "flatten",
        "input_dropout",
        "maxout1",
        "dropout1",
        "maxout2",
        "dropout2",
        "linear",
    ]
    assert model.net.input_dropout.p == 0.2
    assert {model.net.dropout1.p, model.net.dropout2.p} == {0.5}
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_mlp_arguments_reach_the_layers() -> None:
    model = MaxoutMLP(3, (3, 4, 5), units=6, pieces=2, layers=3, input_dropout=0.1, dropout=0.3)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.ndim == 2}
    assert shapes == {
        "net.maxout1.weight": (12, 60),
        "net.maxout2.weight": (12, 6),
        "net.maxout3.weight": (12, 6),
        "net.linear.weight": (3, 6),
    }
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.1, 0.3, 0.3, 0.3]


def test_mlp_initial_weights() -> None:
    torch.manual_seed(0)
    irange = 0.02
    for name, p in MaxoutMLP(irange=irange).named_parameters():
        if p.ndim == 1:
            assert not p.any(), name
            continue
        assert p.abs().max() <= irange
        # Variance irange^2 / 3 tells U(-irange, irange) from a narrower draw; 10 % is 5 deviations at 2,400.
        assert p.var().item() == pytest.approx(irange**2 / 3, rel=0.1), name
        assert abs(p.mean().item()) < 5 * irange / math.sqrt(3 * p.numel())


def test_mlp_initial_weights_follow_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in MaxoutMLP(units=8).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_mlp_composes_its_layers() -> None:  # in eval mode, with no scale in between
    torch.manual_seed(0)
    model = MaxoutMLP(4, (1, 3, 3), units=5, pieces=2).double().eval()
    x = torch.randn(6, 1, 3, 3, dtype=torch.float64)
    h = x.flatten(1)
    for layer in (model.net.maxout1, model.net.maxout2):
        first, second = (h @ layer.weight.T + layer.bias).split(5, dim=1)
        h = torch.maximum(first, second)
    torch.testing.assert_close(model(x), h @ model.net.linear.weight.T + model.net.linear.bias)


def test_mlp_rescales_hidden_units_but_not_inputs() -> None:
    torch.manual_seed(0)
    model = MaxoutMLP(units=200).train()
    x = torch.ones(1, 1, 28, 28)
    seen = {}
    for name in ("input_dropout", "maxout1", "dropout1"):
        model.net.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, out)
        )
    model(x)
    assert set(seen["input_dropout"].unique().tolist()) == {0.0, 1.0}
    kept = seen["dropout1"] != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(seen["dropout1"][kept], 2 * seen["maxout1"][kept])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mlp_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MaxoutMLP(units=16).eval()
    x = torch.rand(8, 1, 28, 28, requires_grad=True)
    exact = model(x).detach()
    with torch.autocast("cpu", dtype):
        logits = model(x)
    assert logits.dtype == dtype
    # Two roundings of relative size eps in each of three layers.
    scale = exact.abs().max().item()
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=6 * torch.finfo(dtype).eps * scale)
    logits.float().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_mlp_survives_pickle_and_state_dict() -> None:
    model = MaxoutMLP(units=8).eval()
    x = torch.rand(2, 1, 28, 28)
    other = MaxoutMLP(units=8).eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ({"num_classes": 0}, "num_classes.*1.*0"),
        ({"input_shape": (1, 0, 28)}, r"input_shape.*1.*\(1, 0, 28\)"),
        ({"layers": 0}, "layers.*1.*0"),
        ({"pieces": -1}, "pieces.*1.*-1"),
        ({"irange": -0.1}, "irange.*0 or more.*-0.1"),
        ({"irange": math.nan}, "irange.*0 or more.*nan"),
        ({"input_dropout": 1.5}, "between 0 and 1"),
    ],
)
def test_mlp_refuses_bad_arguments(arguments: dict[str, Any], facts: str) -> None:
    with pytest.raises(ValueError, match=facts):
        MaxoutMLP(**arguments)
