"""Networks with shared, frozen, recomputed or synchronised layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adv_lightning.data import DigitsDataModule
from tests.lightning.conftest import Command
from tests.support.digits import EPS, fit, module, net
from tests.support.helpers import weights


@pytest.mark.switch("refused", "sync_batchnorm on the CPU")
def test_sync_batchnorm(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("--trainer.sync_batchnorm=true", "--trainer.devices=2")
    assert "error: trainer.sync_batchnorm=true needs a GPU" in capsys.readouterr().err
    assert command("--trainer.sync_batchnorm=true", "--trainer.devices=1").trainer.global_step == 4


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x.flatten(1)).tanh()).tanh())


@pytest.mark.switch("works", "tied weights")
def test_tied_weights() -> None:
    model, data = module(Tied().double(), lr=1.0), DigitsDataModule()
    before = weights(model)
    fit(model, data, precision="64-true", limit_train_batches=1)

    twin = Tied().double()
    x, y = next(iter(data.train_dataloader()))
    x = x.double().requires_grad_()
    (direction,) = torch.autograd.grad(F.cross_entropy(twin(x), y), x)
    mixed = F.cross_entropy(twin(x), y) + F.cross_entropy(twin((x + EPS * direction.sign()).detach()), y)
    grads = torch.autograd.grad(0.5 * mixed, list(twin.parameters()))
    torch.testing.assert_close(before - weights(model), torch.cat([g.flatten() for g in grads]), rtol=0, atol=1e-14)
    assert model.backbone.second.weight is model.backbone.first.weight


class Checkpointed(nn.Module):
    """The network of the other tests, with its first layers computed again in the backward pass."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.layers, self.use_reentrant = net(), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[3](checkpoint(self.layers[:3], x, use_reentrant=self.use_reentrant))


@pytest.mark.switch("works", "torch.utils.checkpoint, use_reentrant=False")
def test_gradient_checkpointing() -> None:
    model, reference = module(Checkpointed(use_reentrant=False)), module()
    fit(model)
    fit(reference)
    assert torch.equal(weights(model), weights(reference))


@pytest.mark.switch("refused", "torch.utils.checkpoint, use_reentrant=True")
def test_reentrant_gradient_checkpointing() -> None:
    with pytest.raises(RuntimeError, match="set use_reentrant=False"):
        fit(module(Checkpointed(use_reentrant=True)))


@pytest.mark.switch("works", "requires_grad_(False) on layers")
def test_frozen_layers() -> None:
    model = module()
    model.backbone[1].requires_grad_(False)
    before = {name: p.clone() for name, p in model.backbone.named_parameters()}
    fit(model)
    same = {name for name, p in model.backbone.named_parameters() if torch.equal(p, before[name])}
    assert same == {"1.weight", "1.bias"}
