"""What is judged in every loop, against figures computed by hand."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack
from tests.support.helpers import (
    Batches,
    CountedFGSM,
    Snapshot,
    adversarial,
    batches,
    fit,
    mlp,
    norm_net,
    quiet_trainer,
    weights,
)

SGD = partial(torch.optim.SGD, lr=0.1)

# Some networks here have a layer in eval mode on purpose.
mixed_modes = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode at the start of training")


def by_hand(net: nn.Module, loader: Batches, attack: Attack | None, samples: int | None = None) -> dict[str, float]:
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    net = copy.deepcopy(net).eval()
    logits = net(x)
    figures = {"loss": F.cross_entropy(logits, y), "error": (logits.argmax(1) != y).double().mean()}
    if attack is not None:
        n = len(x) if samples is None else samples
        probabilities = net(attack(net, x[:n], y[:n], loss_fn=F.cross_entropy)).softmax(1)
        wrong = probabilities.argmax(1) != y[:n]
        figures |= {"adv_error": wrong.double().mean(), "adv_confidence": probabilities.amax(1)[wrong].mean()}
    return {name: value.item() for name, value in figures.items()}


def keyed(stage: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{stage}/{name}": pytest.approx(value, abs=1e-6) for name, value in figures.items()}


def found(trainer: Trainer, stage: str) -> dict[str, float]:
    return {name: v.item() for name, v in trainer.callback_metrics.items() if name.startswith(stage)}


@mixed_modes
@pytest.mark.parametrize("attack", [FGSM(0.3), PGD(0.3, steps=3)], ids=["FGSM", "PGD"])
def test_figures_equal_those_by_hand(attack: Attack) -> None:
    net, loader = norm_net(), Batches(*batches(3, size=8, seed=1), *batches(1, size=3, seed=2))
    module = AdversarialModule(net, attack)
    trainer = fit(module, batches(3), loader)
    expected = by_hand(net, loader, attack)
    assert expected["adv_error"] > expected["error"]
    assert found(trainer, "val") == keyed("val", expected)
    trainer.validate(module, loader, verbose=False)
    assert found(trainer, "val") == keyed("val", expected)
    trainer.test(module, loader, verbose=False)
    assert found(trainer, "test") == keyed("test", expected)


def test_val_attack_defaults_to_attack() -> None:
    loader = batches(3)
    for attack, val_attack, judge in [(FGSM(0.1), None, FGSM(0.1)), (FGSM(0.1), FGSM(0.4), FGSM(0.4))]:
        net = mlp()
        trainer = fit(AdversarialModule(net, attack, val_attack=val_attack), loader, loader)
        assert found(trainer, "val") == keyed("val", by_hand(net, loader, judge))


def test_plain_training_under_attack() -> None:
    loader, net, twin = batches(3), mlp(), mlp()
    module = AdversarialModule(net, None, val_attack=FGSM(0.3), optimizer=SGD)
    trainer = fit(module, loader, loader)
    for x, y in loader:
        twin.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        SGD(twin.parameters()).step()
    torch.testing.assert_close(weights(module), weights(twin), rtol=0, atol=1e-12)
    assert found(trainer, "val") == keyed("val", by_hand(net, loader, FGSM(0.3)))
    assert set(found(trainer, "train")) == {
        f"train/{name}{e}" for name in ("loss", "clean_loss") for e in ("", "_epoch")
    }


def test_without_attack() -> None:
    module = AdversarialModule(mlp(), None)
    trainer = fit(module, batches(3), batches(2))
    assert set(found(trainer, "val")) == {"val/error", "val/loss"}
    trainer.test(module, batches(2), verbose=False)
    assert set(found(trainer, "test")) == {"test/error", "test/loss"}


def test_confidence_needs_a_mistake() -> None:
    net = nn.Linear(3, 3, bias=False).double()
    nn.init.eye_(net.weight)
    x, y = 30 * torch.eye(3, dtype=torch.float64), torch.arange(3)
    trainer = quiet_trainer()
    trainer.validate(AdversarialModule(net, FGSM(0.1)), Batches((x, y)), verbose=False)
    assert found(trainer, "val").keys() == {"val/loss", "val/error", "val/adv_error"}
    assert found(trainer, "val")["val/adv_error"] == 0
    trainer.validate(AdversarialModule(net, FGSM(28)), Batches((x, y)), verbose=False)
    assert found(trainer, "val")["val/adv_error"] == 1
    assert found(trainer, "val")["val/adv_confidence"] == pytest.approx(0.5)  # the two other classes tie


class Totals(Callback):
    """How many examples were judged in each loop, clean and under attack."""

    def __init__(self) -> None:
        self.totals: list[tuple[int, int]] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts = pl_module.evaluation.metrics
        self.totals.append((int(counts.error.total), int(counts.adv_error.total)))

    on_test_epoch_end = on_validation_epoch_end


@pytest.mark.parametrize("samples", [5, 8, 11, 16, 99])
def test_val_attack_samples(samples: int) -> None:
    net, loader, seen = mlp(), batches(2), Totals()
    module = AdversarialModule(net, FGSM(0.3), val_attack_samples=samples)
    trainer = fit(module, batches(1), loader, max_epochs=2, callbacks=[seen])
    assert found(trainer, "val") == keyed("val", by_hand(net, loader, FGSM(0.3), min(samples, 16)))
    trainer.test(module, loader, verbose=False)
    assert seen.totals == [(16, min(samples, 16))] * 2 + [(16, 16)]


def test_val_attack_every_n_epochs() -> None:
    judge = CountedFGSM(0.3)
    module = AdversarialModule(mlp(), None, val_attack=judge, val_attack_every_n_epochs=3)
    calls: list[int] = []

    class Watch(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            calls.append(getattr(judge, "calls", 0))

    trainer = fit(module, batches(1), batches(2), max_epochs=7, callbacks=[Watch()])
    assert calls == [0, 0, 2, 2, 2, 4, 4]
    trainer.validate(module, batches(2), verbose=False)
    assert judge.calls == 6
    trainer.test(module, batches(2), verbose=False)
    assert judge.calls == 8


def test_predict() -> None:
    net, (x, y) = mlp(), next(iter(batches(1)))
    clean = net(x).softmax(1).detach()
    for batch in ((x, y), x):
        (probabilities,) = quiet_trainer().predict(AdversarialModule(net, FGSM(0.3)), Batches(batch))
        torch.testing.assert_close(probabilities, clean)
    (both,) = quiet_trainer().predict(AdversarialModule(net, FGSM(0.3), predict_attacked=True), Batches((x, y)))
    x_adv = adversarial(net, x, net(x).argmax(1), 0.3)  # the labels are those predicted, not y
    assert (net(x).argmax(1) != y).any()
    torch.testing.assert_close(both, {"clean": clean, "attacked": net(x_adv).softmax(1).detach()})


class Unchanged(Callback):
    """Compares buffers, modes and gradients at the start and the end of every evaluation loop."""

    def __init__(self) -> None:
        self.compared = 0

    def _start(self, trainer: Trainer, module: LightningModule) -> None:
        for p in list(module.backbone.parameters())[::2]:
            p.grad = torch.randn_like(p)
        self.before = Snapshot(module.backbone)

    def _end(self, trainer: Trainer, module: LightningModule) -> None:
        self.before.assert_same(module.backbone)
        self.compared += 1

    on_validation_start = on_test_start = on_predict_start = _start
    on_validation_end = on_test_end = on_predict_end = _end


@mixed_modes
@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=2)], ids=["FGSM", "PGD"])
def test_leaves_the_network_as_it_was(attack: Attack) -> None:
    net, same, loader = norm_net(), Unchanged(), batches(2)
    modes = Snapshot(net).modes
    module = AdversarialModule(net, attack, predict_attacked=True)
    trainer = fit(module, batches(3), loader, max_epochs=2, callbacks=[same], val_check_interval=1)
    assert same.compared == 6
    trainer.validate(module, loader, verbose=False)
    trainer.test(module, loader, verbose=False)
    trainer.predict(module, loader)
    assert same.compared == 9
    assert Snapshot(net).modes == modes
