from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from adv_lightning import FGSM, AdversarialModule, MaxNorm
from adv_lightning.models import Maxout
from tests.support.helpers import Batches, batches, fit

SGD = partial(torch.optim.SGD, lr=5.0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.maxout = Maxout(16, 5, 2)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maxout(self.norm(self.conv(x)).relu().flatten(1)))


def loader(number: int = 6) -> Batches:
    return Batches(*((x.view(8, 1, 4, 4), y) for x, y in batches(number, features=16, dtype=torch.float32)))


class Norms(Callback):
    """Keeps the largest norm of each layer's units after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        net = pl_module.backbone
        self.seen.append(
            {
                "conv": net.conv.weight.square().sum((1, 2, 3)).sqrt().max().item(),
                "maxout": max(row.norm().item() for row in net.maxout.weight),
                "head": max(row.norm().item() for row in net.head.weight),
            }
        )


@pytest.mark.parametrize("layers", [None, ["head"], ["conv", "maxout"]])
def test_limits_each_unit_after_every_step(layers: list[str] | None) -> None:
    norms = Norms()
    module = AdversarialModule(Net(), FGSM(0.1), optimizer=SGD)
    fit(module, loader(), callbacks=[MaxNorm(0.5, layers), norms])
    limited = {"conv", "maxout", "head"} if layers is None else set(layers)
    assert len(norms.seen) == 6
    for seen in norms.seen:
        assert all(seen[name] <= 0.5 + 1e-6 for name in limited)
    for name in {"conv", "maxout", "head"} - limited:
        assert max(seen[name] for seen in norms.seen) > 1


class Before(Callback):
    """Keeps the weights after the last optimizer step, if listed before MaxNorm."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.state = {name: p.detach().clone() for name, p in pl_module.backbone.named_parameters()}


def test_scales_only_the_rows_that_are_too_long() -> None:
    net, before = Net(), Before()
    with torch.no_grad():
        net.head.weight[0] *= 20
        net.conv.weight[1] *= 20
    module = AdversarialModule(net, FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=1e-4))
    fit(module, loader(1), callbacks=[before, MaxNorm(1.5)])
    scaled = 0
    for name, p in net.named_parameters():
        old = before.state[name]
        if p.dim() < 2:
            assert torch.equal(p, old), name
            continue
        norms = old.flatten(1).norm(dim=1)
        kept = norms <= 1.5
        scaled += int((~kept).sum())
        assert torch.equal(p[kept], old[kept])
        expected = old[~kept] * (1.5 / norms[~kept]).view(-1, *[1] * (p.dim() - 1))
        torch.testing.assert_close(p.detach()[~kept], expected, rtol=1e-5, atol=1e-6)
    assert scaled == 2


@pytest.mark.parametrize("layer", ["heads", "norm", ""])
def test_unknown_name_lists_the_known_ones(layer: str) -> None:
    module = AdversarialModule(Net(), FGSM(0.1))
    with pytest.raises(ValueError, match=f"layers has '{layer}'.*: .* conv, maxout, head$"):
        fit(module, loader(1), callbacks=[MaxNorm(1.0, [layer])])


class Mixed(nn.Module):
    """Layers of many kinds; only the weights of the convolution and of the head have the units first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 1)
        self.up = nn.ConvTranspose2d(4, 2, 1)
        self.norm = nn.LayerNorm([2, 4, 4])
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.up(self.conv(x))).flatten(1))


def test_limits_only_layers_with_units() -> None:
    net, before = Mixed(), Before()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(20)
    module = AdversarialModule(net, FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=1e-6))
    fit(module, loader(1), callbacks=[before, MaxNorm(0.5)])
    changed = [name for name, p in net.named_parameters() if not torch.equal(p, before.state[name])]
    assert changed == ["conv.weight", "head.weight"]


@pytest.mark.parametrize(("layer", "kind"), [("up", "ConvTranspose2d"), ("norm", "LayerNorm")])
def test_refuses_a_named_layer_of_another_kind(layer: str, kind: str) -> None:
    message = f"layers has '{layer}', .*{kind}.*: .* conv, head$"
    with pytest.raises(ValueError, match=message):
        fit(AdversarialModule(Mixed(), FGSM(0.1)), loader(1), callbacks=[MaxNorm(1.0, ["head", layer])])


def test_refuses_a_backbone_without_such_a_layer() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(1, 3, 4), nn.AvgPool2d(7), nn.Flatten())
    with pytest.raises(ValueError, match=r"none.*callbacks\.max_norm=null"):
        fit(AdversarialModule(net, FGSM(0.1)), loader(1), callbacks=[MaxNorm(1.0)])


@pytest.mark.parametrize("layers", [None, ["maxout", "head"]])
@pytest.mark.parametrize(
    "change",
    [
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        partial(torch.nn.utils.prune.l1_unstructured, name="weight", amount=0.5),
    ],
)
def test_refuses_a_computed_weight(change: Any, layers: list[str] | None) -> None:
    net = Net()
    change(net.head)
    with pytest.raises(ValueError, match=r"'head' is computed.* conv, maxout$"):
        fit(AdversarialModule(net, FGSM(0.1)), loader(1), callbacks=[MaxNorm(1.0, layers)])
    fit(AdversarialModule(net, FGSM(0.1)), loader(1), callbacks=[MaxNorm(0.1, ["conv", "maxout"])])
    assert net.conv.weight.flatten(1).norm(dim=1).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan")])
def test_refuses_a_limit_that_is_not_above_0(max_norm: float) -> None:
    with pytest.raises(ValueError, match=f"max_norm={max_norm}"):
        MaxNorm(max_norm)
