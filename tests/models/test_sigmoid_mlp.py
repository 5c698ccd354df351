from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_lightning.models import SigmoidMLP


def test_composes_its_layers() -> None:
    torch.manual_seed(0)
    model, x = SigmoidMLP(3, (1, 4, 4), units=7).double(), torch.rand(5, 1, 4, 4, dtype=torch.float64)
    assert [*dict(model.net.named_children())] == ["flatten", "linear1", "sigmoid1", "linear2", "sigmoid2", "linear"]
    h = x.flatten(1)
    for name in ("linear1", "linear2"):
        layer = model.net.get_submodule(name)
        h = 1 / (1 + torch.exp(-(h @ layer.weight.T + layer.bias)))
    torch.testing.assert_close(model(x), h @ model.net.linear.weight.T + model.net.linear.bias)


def test_starts_away_from_saturation() -> None:
    torch.manual_seed(0)
    model, seen = SigmoidMLP(layers=3), []
    for name, layer in model.net.named_children():
        if isinstance(layer, nn.Sigmoid):
            model.net.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(output))
    model(torch.rand(200, 1, 28, 28))
    assert len(seen) == 3
    for output in seen:
        spread = output.std(dim=0).mean()  # the layer tells examples apart
        assert spread > 0.02
        assert ((output < 0.02) | (output > 0.98)).float().mean() < 0.5


def test_learns_a_batch_with_three_layers() -> None:
    torch.manual_seed(0)
    model = SigmoidMLP(4, (1, 8, 8), units=50, layers=3)
    x, y = torch.rand(16, 1, 8, 8), torch.arange(16) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert torch.equal(model(x).argmax(1), y)


def test_refuses_sizes_below_1() -> None:
    for name in ("num_classes", "units", "layers"):
        with pytest.raises(ValueError, match=f"SigmoidMLP: {name}.*1.*0"):
            SigmoidMLP(**{name: 0})
