from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from adv_lightning import FGSM, AdversarialModule, InputSite, L1Penalty, adversarial_objective
from tests.support.helpers import Batches, batches, fit, mlp, quiet_trainer
from tests.support.interrupted import broken_off, weights

SGD = partial(torch.optim.SGD, lr=1.0)


class Watched(AdversarialModule):
    """Keeps the inputs of its passes."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = [*getattr(self, "seen", []), x.detach().clone()]
        return super().forward(x)


@pytest.mark.parametrize("layers", [["0"], ["2"], ["0", "2"]])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_step_is_that_of_the_objective_and_of_the_signs_of_the_weights(layers: list[str], alpha: float) -> None:
    net, (batch,) = mlp(), batches(1)
    with torch.no_grad():
        net[0].weight[0, 0] = 0.0
    loss = nn.functional.cross_entropy
    adversarial_objective(
        net, *batch, loss_fn=loss, sites=[InputSite(FGSM(0.1))], alpha=alpha
    ).total.backward()  # fmt: skip
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
        assert torch.equal(module.seen[-1], x_adv)  # the attack knows nothing of the penalty
    figures = {name: value.item() for name, value in trainer.callback_metrics.items()}
    parts = alpha * figures.get("train/clean_loss_epoch", 0) + (1 - alpha) * figures.get("train/adv_loss_epoch", 0)
    assert figures["train/loss_epoch"] == pytest.approx(parts + 0.3 * total.item(), rel=1e-5)


def test_weights_computed_from_others_are_penalised_as_they_are_now() -> None:
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


def test_coefficient_0_is_training_without_it() -> None:
    found = []
    for callbacks in ([], [L1Penalty(0.0, ["0"])]):
        net = mlp()
        fit(AdversarialModule(net, FGSM(0.1), optimizer=SGD), batches(3), callbacks=callbacks)
        found.append(weights(net))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["1", "3", "", "0.weight"])
def test_a_name_without_a_weight_lists_those_with_one(name: str) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=SGD)
    start = weights(module)
    with pytest.raises(ValueError, match=rf"layers has '{name}', .*with a weight: there are 0, 2$"):
        fit(module, batches(1), callbacks=[L1Penalty(0.1, [name])])
    assert torch.equal(weights(module), start)
    assert module.terms == []


@pytest.mark.parametrize("coefficient", [-0.1, float("nan"), float("inf")])
def test_bad_arguments_are_refused(coefficient: float) -> None:
    with pytest.raises(ValueError, match="give a finite number of 0 or more"):
        L1Penalty(coefficient, ["0"])
    for layers, reason in (([], "give a list"), ("0", "give a list"), (["0", "0"], "each layer once")):
        with pytest.raises(ValueError, match=reason):
            L1Penalty(0.1, layers)  # type: ignore[arg-type]


def test_only_an_adversarial_module_is_worked_on() -> None:
    class Plain(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None: ...

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([nn.Parameter(torch.zeros(1))])

    with pytest.raises(TypeError, match="L1Penalty works on an AdversarialModule, and this is a Plain"):
        quiet_trainer(callbacks=[L1Penalty(0.1, ["0"])]).fit(Plain(), batches(1))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_the_module_is_given_back_and_fits_again(error: Any) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=SGD)
    callback = L1Penalty(0.1, ["0"])
    if error is None:
        fit(module, batches(3), callbacks=[callback])
    else:
        broken_off(module, batches(3), error, callback)
    assert module.terms == []
    fit(module, batches(1), callbacks=[callback])
    assert module.terms == []
