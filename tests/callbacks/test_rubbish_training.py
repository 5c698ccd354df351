from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule, InputNoise, Loss, RubbishTraining, SigmoidLoss, SignNoise
from adv_lightning.data.seeding import mix_seed
from adv_lightning.models import MaxoutMLP
from tests.support.helpers import Batches, Counter, batches, fit, mlp
from tests.support.interrupted import broken_off, weights, whole_and_resumed

SGD = partial(torch.optim.SGD, lr=0.5)


def noise(number: int, epoch: int, batch: int, std: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(mix_seed(0, epoch, 0, batch, 2))
    return torch.empty(number, 6, dtype=torch.float64).normal_(0, std, generator=generator)


def uniform(logits: Tensor) -> Tensor:
    """Cross-entropy with the target 1/3 for every class."""
    return F.cross_entropy(logits, torch.full_like(logits, 1 / 3))


def absent(logits: Tensor) -> Tensor:
    """Sum of the binary cross-entropies with the target 0 for every class."""
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none").sum() / len(logits)


@pytest.mark.parametrize(
    ("loss_fn", "no_class"), [(None, uniform), (SigmoidLoss(), absent)], ids=["softmax", "sigmoid"]
)
@pytest.mark.parametrize(
    ("kwargs", "number"),
    [({}, 8), ({"weight": 0.3, "fraction": 0.5, "std": 2.0}, 4), ({"fraction": 0.01}, 1), ({"fraction": 2.2}, 18)],
)
def test_steps_equal_their_closed_form(
    loss_fn: Loss | None, no_class: Callable[[Tensor], Tensor], kwargs: dict[str, float], number: int
) -> None:
    net, loader = mlp(), batches(3)
    counter = Counter(net[0])
    module = AdversarialModule(net, FGSM(0.1), loss_fn=loss_fn, optimizer=SGD)
    fit(module, loader, max_epochs=2, callbacks=[RubbishTraining(**kwargs)])
    assert (counter.forward, counter.backward) == (18, 18)

    twin = mlp()
    optimizer, loss = SGD(twin.parameters()), module.loss
    for epoch in range(2):
        for i, (x, y) in enumerate(loader):
            x_adv = FGSM(0.1)(twin, x, y, loss_fn=loss)
            optimizer.zero_grad()
            rubbish = no_class(twin(noise(number, epoch, i, kwargs.get("std", 1.0))))
            (0.5 * loss(twin(x), y) + 0.5 * loss(twin(x_adv), y) + kwargs.get("weight", 1.0) * rubbish).backward()
            optimizer.step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-13)


def test_keeps_running_statistics_and_normalises_noise_by_its_own() -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()

    net, twin, (batch,) = build(), build(), batches(1)
    module = AdversarialModule(net, None, optimizer=SGD)
    fit(module, Batches(batch), callbacks=[RubbishTraining(std=3.0)])
    optimizer = SGD(twin.parameters())
    clean = F.cross_entropy(twin(batch[0]), batch[1])
    statistics = {name: value.clone() for name, value in twin[1].named_buffers()}
    (clean + uniform(twin(noise(8, 0, 0, 3.0)))).backward()
    optimizer.step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-13)
    for name, value in net[1].named_buffers():
        assert torch.equal(value, statistics[name]), name
    assert net[1].track_running_stats


def test_draws_differ_from_input_noise() -> None:
    draws: list[Tensor] = []
    net = mlp(features=500)
    net.register_forward_pre_hook(lambda module, args: draws.append(args[0].detach().clone()))
    loader = Batches(*((torch.zeros(8, 500, dtype=torch.float64), y) for _, y in batches(3)))
    callbacks = [InputNoise(SignNoise(1.0)), RubbishTraining()]
    fit(AdversarialModule(net, None, alpha=0.0), loader, max_epochs=2, callbacks=callbacks)
    assert len(draws) == 12
    correlation = torch.corrcoef(torch.cat(draws)) - torch.eye(96)
    assert correlation.abs().max() < 5.5 / 500**0.5


def test_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    def build() -> tuple[AdversarialModule, list[Callback]]:
        torch.manual_seed(0)
        net = MaxoutMLP(input_shape=(1, 8, 8), units=8, pieces=2, input_dropout=0, dropout=0)
        return AdversarialModule(net, FGSM(0.1), optimizer=SGD), [RubbishTraining(fraction=0.5)]

    whole, *resumed = whole_and_resumed(build, tmp_path)
    assert all(torch.equal(each, whole) for each in resumed)


def test_lowers_the_confidence_on_noise() -> None:
    confidences = []
    for callbacks in ([], [RubbishTraining(std=3.0)]):
        net = mlp(hidden=32)
        module = AdversarialModule(net, None, optimizer=partial(torch.optim.Adam, lr=0.05))
        fit(module, batches(10), max_epochs=4, callbacks=callbacks)
        rubbish = 3 * torch.randn(1000, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        confidences.append(net(rubbish).softmax(1).amax(1).mean().item())
    assert confidences[1] < 0.45 < 0.55 < confidences[0]


@pytest.mark.parametrize("name", ["weight", "fraction", "std"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_refuses_numbers_that_are_not_above_0(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        RubbishTraining(**{name: value})


def test_refuses_a_loss_without_no_class() -> None:
    class Own(Loss):
        def forward(self, logits: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(logits, y)

    module = AdversarialModule(mlp(), None, loss_fn=Own(), optimizer=SGD)
    with pytest.raises(NotImplementedError, match=r"Own.*no_class\(logits\)"):
        fit(module, batches(1), callbacks=[RubbishTraining()])
    assert module.terms == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_module_is_restored_and_fits_again(error: Any) -> None:
    net = mlp()
    module = AdversarialModule(net, FGSM(0.1), optimizer=SGD)
    callback = RubbishTraining()
    if error is None:
        fit(module, batches(3), batches(1), callbacks=[callback])
    else:
        broken_off(module, batches(3), error, callback)
    assert module.terms == []
    twin = mlp()
    twin.load_state_dict(net.state_dict())
    fit(module, batches(2), callbacks=[callback])
    fit(AdversarialModule(twin, FGSM(0.1), optimizer=SGD), batches(2), callbacks=[RubbishTraining()])
    assert torch.equal(weights(net), weights(twin))
