"""Contexts that change how a network runs leave it as it was, whatever state its layers keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adv_lightning import FGSM, PGD, Attack
from adv_lightning.attacks.model_mode import InEvalMode, eval_mode, is_compiled, kept_buffers
from tests.support.helpers import Snapshot


class Count(nn.Module):
    """Counts its passes in one buffer, replaces another, and shares a third."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()))
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
            self.largest = x.detach().abs().max()
        return x


def shared() -> nn.Module:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    net[1].running_mean = net[0].running_mean
    return net


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm2d(2),
    "lazy mean": lambda: nn.BatchNorm2d(2, momentum=None),
    "instance norm": lambda: nn.InstanceNorm2d(2, track_running_stats=True),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 2, 3, padding=1)),
    "spectral norm by a hook": lambda: nn.utils.spectral_norm(nn.Conv2d(2, 2, 3, padding=1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3, padding=1)),
    "observer": lambda: torch.ao.quantization.MovingAverageMinMaxObserver(),
    "counter": Count,
    "shared": shared,
}
layers = pytest.mark.parametrize("layer", LAYERS)


class Checkpointed(nn.Module):
    """A layer that runs again in the backward pass."""

    def __init__(self, layer: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.layer, x, use_reentrant=self.reentrant)
        return y


def net(layer: str, wrap: Callable[[nn.Module], nn.Module] = nn.Sequential) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), wrap(LAYERS[layer]()), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(8, 1, 6, 6, generator=generator), torch.arange(8) % 3


@layers
@pytest.mark.parametrize("wrap", [nn.Sequential, Checkpointed])
@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=2, restarts=2)], ids=["FGSM", "PGD"])
def test_an_attack_leaves_every_buffer(layer: str, wrap: Any, attack: Attack) -> None:
    model, (x, y) = net(layer, wrap), images()
    before = Snapshot(model)
    ids = {name: id(buffer) for name, buffer in model.named_buffers()}
    attack(model, x, y, loss_fn=F.cross_entropy)
    before.assert_same(model)
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == ids
    # And the passes of the test itself move them, so that the test can fail.
    model(x)
    if layer != "weight norm":
        with pytest.raises(AssertionError):
            before.assert_same(model)


@layers
def test_passes_see_what_they_would_see(layer: str) -> None:
    model, twin, (x, _) = net(layer), net(layer), images()
    with kept_buffers(model):
        found = [model(x), model(x)]
    assert [torch.equal(a, twin(x)) for a in found] == [True, True]


@layers
@pytest.mark.parametrize("reentrant", [False, True])
def test_later_differentiation_leaves_every_buffer(layer: str, reentrant: bool) -> None:
    model, (x, y) = net(layer, lambda inner: Checkpointed(inner, reentrant)), images()
    before = Snapshot(model)
    with kept_buffers(model) as passes:
        logits = model(x)
    passes.follow(logits)
    with kept_buffers(model) as passes:
        others = model(x + 1)
    passes.follow(others)
    (F.cross_entropy(logits, y) + F.cross_entropy(others, y)).backward()
    model.zero_grad()
    before.assert_same(model)


def test_an_ordinary_pass_moves_buffers_again() -> None:
    """Even if the backward pass did not run a layer that was to be run again."""
    torch.manual_seed(0)
    count = Count()
    # Nothing after `count` in the checkpoint is needed, so it stops before it.
    segment = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), count)
    x = torch.ones(2, 3)
    with kept_buffers(segment) as passes:
        out = checkpoint(segment, x, use_reentrant=False)
    passes.follow(out)
    out.sum().backward()
    assert count.passes == 0
    segment(x)
    segment(x)
    assert count.passes == 2


class Merging(nn.Module):
    """A linear layer with a low-rank adapter, which `train` and `eval` split and merge, as in LoRA."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 6, dtype=torch.float64), requires_grad=False)
        self.down = nn.Parameter(torch.randn(1, 6, dtype=torch.float64))
        self.up = nn.Parameter(torch.randn(3, 1, dtype=torch.float64))
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if self.merged is mode:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down).data
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight if self.merged else self.weight + self.up @ self.down)


class AlwaysEval(nn.BatchNorm1d):
    """Normalises with fixed statistics, even in training."""

    def train(self, mode: bool = True) -> AlwaysEval:
        super().train(False)
        return self


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_modules_that_override_train_come_back() -> None:
    layer = Merging()
    model = nn.Sequential(nn.Sequential(AlwaysEval(6), nn.Dropout()), layer, nn.ReLU()).train()
    model[2].eval()
    before = modes(model)
    weight = layer.weight.clone()
    with eval_mode(model):
        assert modes(model) == [False] * len(before)
        assert layer.merged
    assert modes(model) == before
    assert not layer.merged
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=0, atol=1e-12)


def test_a_model_in_eval_mode_stays_there() -> None:
    model = nn.Sequential(Merging(), nn.Dropout()).eval()
    model[1].train()
    with eval_mode(model):
        pass
    assert modes(model) == [False, False, True]
    assert model[0].merged


def test_attacks_take_a_model_in_eval_mode_for_one_in_training() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(6, 3))
    x, y = torch.rand(4, 6), torch.arange(4) % 3
    with InEvalMode(model) as crafted_on:
        assert modes(model) == [False] * 3
        assert torch.equal(crafted_on(x), model(x))
        first, second = (PGD(0.1, step_size=0.1, steps=1)(crafted_on, x, y, loss_fn=F.cross_entropy) for _ in range(2))
    assert modes(model) == [True] * 3
    assert not torch.equal(first, second)


def test_tells_whether_a_module_is_compiled() -> None:
    eager, in_place, inner = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    in_place.compile(backend="eager")
    wrapped = torch.compile(inner, backend="eager")
    assert [is_compiled(module) for module in (eager, in_place, wrapped, inner)] == [False, True, True, False]
    assert not is_compiled(nn.Sequential(in_place))


def test_a_compiled_network_is_not_compiled_again() -> None:
    torch._dynamo.reset()
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model, (x, y) = net("batch norm"), images()
    model.compile(backend=backend)
    for _ in range(3):
        with kept_buffers(model):
            F.cross_entropy(model(x), y).backward()
    number = len(compiled)
    for _ in range(3):
        F.cross_entropy(model(x), y).backward()
        with kept_buffers(model):
            F.cross_entropy(model(x), y).backward()
    assert len(compiled) == number
