from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from adv_lightning import FGSM, AdversarialModule, InputSite, L1Penalty, adversarial_objective
from tests.support.helpers import Batches, batches, fit, mlp
from tests.support.interrupted import broken_off, weights

SGD = partial(torch.optim.SGD, lr=1.0)


class Watched(AdversarialModule):
    """Keeps the inputs of its forward passes."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = [*getattr(self, "seen", []), x.detach().clone()]
        return super().forward(x)


@pytest.mark.parametrize("layers", [["0"], ["2"], ["0", "2"]])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_step_adds_the_signs_of_the_weights(layers: list[str], alpha: float) -> None:
    net, (batch,) = mlp(), batches(1)
    with torch.no_grad():
        net[0].weight[0, 0] = 0.0
    loss = nn.functional.cross_entropy
    objective = adversarial_objective(net, *batch, loss_fn=loss, sites=[InputSite(FGSM(0.1))], alpha=alpha)
    objective.total.backward()
    expected = {name: p.detach() - p.grad for name, p in net.named_parameters()}
    for name in layers:
        weight = net[int(name)].weight.detach()
        expected[f"{name}.weight"] -= 0.3 * ((weight > 0).double() - (weight < 0).double())
    x_adv = FGSM(0.1)(net, *batch, loss_fn=loss)
    total = sum(net[int(name)].weight.detach().abs().sum() for name in layers)
    net.zero_grad()
    module = Watched(net, FGSM(0.1), alpha=alpha, optimizer=SGD)
    trainer = fit(module, Batches(batch), callbacks=[L1Penalty(0.3, layers)])
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=0, atol=1e-13)
    if alpha < 1:
        assert torch.equal(module.seen[-1], x_adv)  # the attack ignores the penalty
    figures = {name: value.item() for name, value in trainer.callback_metrics.items()}
    parts = alpha * figures.get("train/clean_loss_epoch", 0) + (1 - alpha) * figures.get("train/adv_loss_epoch", 0)
    assert figures["train/loss_epoch"] == pytest.approx(parts + 0.3 * total.item(), rel=1e-5)


def test_penalises_computed_weights() -> None:
    def build() -> nn.Sequential:
        net = mlp()
        parametrizations.weight_norm(net[0])
        return net

    net, twin, loader = build(), build(), batches(3)
    fit(AdversarialModule(net, None, optimizer=SGD), loader, callbacks=[L1Penalty(0.01, ["0"])])
    optimizer = SGD(twin.parameters())
    for x, y in loader:
        optimizer.zero_grad()
        (nn.functional.cross_entropy(twin(x), y) + 0.01 * twin[0].weight.abs().sum()).backward()
        optimizer.step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-13)


def test_coefficient_0_changes_nothing() -> None:
    found = []
    for callbacks in ([], [L1Penalty(0.0, ["0"])]):
        net = mlp()
        fit(AdversarialModule(net, FGSM(0.1), optimizer=SGD), batches(3), callbacks=callbacks)
        found.append(weights(net))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["1", "3", "", "0.weight"])
def test_unknown_name_lists_the_known_ones(name: str) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=SGD)
    start = weights(module)
    with pytest.raises(ValueError, match=rf"layers has '{name}'.* weight: .* 0, 2$"):
        fit(module, batches(1), callbacks=[L1Penalty(0.1, [name])])
    assert torch.equal(weights(module), start)
    assert module.terms == []


@pytest.mark.parametrize("coefficient", [-0.1, float("nan"), float("inf")])
def test_refuses_bad_arguments(coefficient: float) -> None:
    with pytest.raises(ValueError, match=f"coefficient={coefficient}"):
        L1Penalty(coefficient, ["0"])
    for layers, reason in (([], "list"), ("0", "list"), (["0", "0"], "once")):
        with pytest.raises(ValueError, match=reason):
            L1Penalty(0.1, layers)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_module_is_restored_and_fits_again(error: Any) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=SGD)
    callback = L1Penalty(0.1, ["0"])
    if error is None:
        fit(module, batches(3), callbacks=[callback])
    else:
        broken_off(module, batches(3), error, callback)
    assert module.terms == []
    fit(module, batches(1), callbacks=[callback])
    assert module.terms == []


def test_tied_weights_count_once() -> None:
    first, second = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()
    second.weight = first.weight
    net = nn.ModuleDict({"a": first, "b": second})
    module = AdversarialModule(nn.Sequential(), FGSM(0.1))
    module.backbone = net
    for layers in (["a"], ["b"], ["a", "b"]):
        assert L1Penalty(0.5, layers).term(module)(torch.zeros(1)) == 0.5 * first.weight.abs().sum()
    second.weight = nn.Parameter(torch.ones_like(first.weight))
    both = first.weight.abs().sum() + 36
    assert L1Penalty(0.5, ["a", "b"]).term(module)(torch.zeros(1)).item() == pytest.approx(0.5 * both.item())
