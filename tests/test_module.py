"""Training equals loops written by hand; overrides, logging and arguments."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Objective
from tests.support.helpers import (
    Batch,
    Batches,
    Counter,
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


def mixed_loss(net: nn.Module, batch: Batch, alpha: float, eps: float) -> Tensor:
    x, y = batch
    x_adv = adversarial(net, x, y, eps)
    return alpha * F.cross_entropy(net(x), y) + (1 - alpha) * F.cross_entropy(net(x_adv), y)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_fit_equals_a_loop(alpha: float, clip: float | None, accumulate: int) -> None:
    loader, net, twin = batches(6), mlp(), mlp()
    module = AdversarialModule(net, FGSM(0.1), alpha=alpha, optimizer=partial(SGD, momentum=0.9))
    fit(module, loader, max_epochs=2, gradient_clip_val=clip, accumulate_grad_batches=accumulate)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    norms = []
    for i, batch in enumerate([*loader, *loader]):
        (mixed_loss(twin, batch, alpha, 0.1) / accumulate).backward()
        if (i + 1) % accumulate == 0:
            norms.append(nn.utils.clip_grad_norm_(twin.parameters(), clip or math.inf))
            optimizer.step()
            optimizer.zero_grad()
    assert clip is None or min(norms) > clip
    torch.testing.assert_close(weights(module), weights(twin), rtol=0, atol=1e-12)


def test_lbfgs_equals_a_loop() -> None:
    loader, net, twin = batches(3), mlp(), mlp()
    lbfgs = partial(torch.optim.LBFGS, lr=0.5, max_iter=4)
    module = AdversarialModule(net, FGSM(0.1), optimizer=lbfgs)
    fit(module, loader)
    optimizer = lbfgs(twin.parameters())
    for batch in loader:

        def closure(batch: Batch = batch) -> Tensor:
            optimizer.zero_grad()
            loss = mixed_loss(twin, batch, 0.5, 0.1)
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
    torch.testing.assert_close(weights(module), weights(twin), rtol=0, atol=1e-10)


def test_penalty_is_not_attacked() -> None:
    class Penalised(AdversarialModule):
        def penalty(self) -> Tensor:
            return 5 * self.backbone[0].weight.abs().sum()

    loader, net, twin = batches(1), mlp(), mlp()
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    fit(Penalised(net, FGSM(0.1), optimizer=SGD), loader)
    (batch,) = loader
    assert torch.equal(seen[1], adversarial(twin, *batch, 0.1))
    (mixed_loss(twin, batch, 0.5, 0.1) + 5 * twin[0].weight.abs().sum()).backward()
    SGD(twin.parameters()).step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-12)


def test_a_step_is_two_passes() -> None:
    net = mlp()
    counter = Counter(net[0])
    fit(AdversarialModule(net, FGSM(0.1)), batches(5))
    assert (counter.forward, counter.backward) == (10, 10)


@mixed_modes
def test_seed() -> None:
    def train(seed: int) -> Tensor:
        net = norm_net()
        torch.manual_seed(seed)
        module = AdversarialModule(net, FGSM(0.1))
        fit(module, batches(5), max_epochs=2)
        return weights(module)

    first = train(1)
    assert torch.equal(train(1), first)
    assert not torch.equal(train(2), first)


@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize("steps", [1, 3])
def test_pgd_crafts_in_own_passes(crafting: str, steps: int) -> None:
    attack = PGD(0.1, step_size=0.1 / steps, steps=steps, random_start=False)
    loader, net, twin = batches(4), mlp(), mlp()
    counter = Counter(net[0])
    fit(AdversarialModule(net, attack, optimizer=SGD, crafting=crafting), loader)
    assert (counter.forward, counter.backward) == (4 * (steps + 2),) * 2
    for x, y in loader:
        x_adv = attack(twin, x, y, loss_fn=F.cross_entropy)
        twin.zero_grad()
        (0.5 * F.cross_entropy(twin(x), y) + 0.5 * F.cross_entropy(twin(x_adv), y)).backward()
        SGD(twin.parameters()).step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-12)


@mixed_modes
@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize(("statistics", "updates"), [("both", 2), ("clean", 1)])
def test_pgd_leaves_batch_norm_and_modes(crafting: str, statistics: str, updates: int) -> None:
    net = norm_net()
    modes = Snapshot(net).modes
    frozen = {name: value.clone() for name, value in net[5].named_buffers()}
    module = AdversarialModule(net, PGD(0.1, steps=3), crafting=crafting, statistics=statistics)  # type: ignore[arg-type]
    fit(module, batches(4), batches(2))
    assert net[1].num_batches_tracked == 4 * updates
    assert all(torch.equal(value, frozen[name]) for name, value in net[5].named_buffers())
    assert Snapshot(net).modes == modes


def test_alpha_1_crafts_nothing() -> None:
    net = mlp()
    counter = Counter(net[0])
    fit(AdversarialModule(net, PGD(0.1, steps=3), alpha=1.0), batches(4))
    assert (counter.forward, counter.backward) == (4, 4)


def found(trainer: Trainer, stage: str) -> dict[str, float]:
    return {name: v.item() for name, v in trainer.callback_metrics.items() if name.startswith(stage)}


def test_own_unpack_and_loss() -> None:
    class Smooth(AdversarialModule):
        def unpack(self, batch: dict[str, Tensor]) -> Batch:
            return batch["pixels"], batch["label"]

        def loss(self, logits: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(logits, y, label_smoothing=0.3)

    def smooth(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x), y, label_smoothing=0.3)

    plain = batches(3)
    loader = Batches(*({"pixels": x, "label": y} for x, y in plain))
    net, twin = mlp(), mlp()
    module = Smooth(net, FGSM(0.1), optimizer=SGD)
    trainer = fit(module, loader, loader)
    for x, y in plain:
        leaf = x.clone().requires_grad_()
        x_adv = x + 0.1 * torch.autograd.grad(smooth(twin, leaf, y), leaf)[0].sign()
        twin.zero_grad()
        (0.5 * smooth(twin, x, y) + 0.5 * smooth(twin, x_adv, y)).backward()
        SGD(twin.parameters()).step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-12)
    x, y = (torch.cat(parts) for parts in zip(*plain, strict=True))
    assert found(trainer, "val")["val/loss"] == pytest.approx(smooth(net, x, y).item(), abs=1e-6)


def test_own_objective() -> None:
    class Squared(AdversarialModule):
        def objective(self, x: Tensor, y: Tensor) -> Objective:
            return Objective(self(x).square().mean())

    net, twin = mlp(), mlp()
    loader = batches(1)
    trainer = fit(Squared(net, FGSM(0.1), optimizer=SGD), loader)
    loss = twin(next(iter(loader))[0]).square().mean()
    loss.backward()
    SGD(twin.parameters()).step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-12)
    value = pytest.approx(loss.item(), abs=1e-6)
    assert found(trainer, "train") == {"train/loss": value, "train/loss_epoch": value}


def test_callable_loss() -> None:
    def loss_fn(logits: Tensor, y: Tensor) -> Tensor:
        return F.multi_margin_loss(logits, y)

    net, loader = mlp(), batches(2)
    trainer = quiet_trainer()
    trainer.validate(AdversarialModule(net, FGSM(0.1), loss_fn=loss_fn), loader, verbose=False)
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert found(trainer, "val")["val/loss"] == pytest.approx(loss_fn(net(x), y).item(), abs=1e-6)


@contextmanager
def counted_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the calls of `log` and `log_dict` made by the module itself."""
    calls: list[str] = []
    depth = 0
    for name in ("log", "log_dict"):
        real = getattr(LightningModule, name)

        def wrapped(*args: Any, _real: Callable[..., None] = real, _name: str = name, **kwargs: Any) -> None:
            nonlocal depth
            if depth == 0:
                calls.append(_name)
            depth += 1
            try:
                _real(*args, **kwargs)
            finally:
                depth -= 1

        monkeypatch.setattr(LightningModule, name, wrapped)
    yield calls


def test_logs_every_n_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_logging(monkeypatch) as calls:
        fit(AdversarialModule(mlp(), FGSM(0.1)), batches(60), log_every_n_steps=20)
    assert 60 / 20 <= len(calls) <= 60 / 20 + 2


class Logged(Callback):
    """The loss of each batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        self.losses.append(outputs["loss"].item() * trainer.accumulate_grad_batches)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_logged_losses_are_means(accumulate: int, tmp_path: Path) -> None:
    logger, watch = CSVLogger(tmp_path), Logged()
    module = AdversarialModule(mlp(), FGSM(0.1), alpha=0.3, optimizer=SGD)
    trainer = fit(
        module,
        batches(13 * accumulate),
        log_every_n_steps=4,
        logger=logger,
        callbacks=[watch],
        accumulate_grad_batches=accumulate,
    )
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        written = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    rows = [row for row in written if "train/loss" in row]
    assert [row["step"] for row in rows] == [3, 7, 11]
    assert len(watch.losses) == 13 * accumulate
    for i, row in enumerate(rows):
        part = watch.losses[4 * accumulate * i : 4 * accumulate * (i + 1)]
        assert row["train/loss"] == pytest.approx(sum(part) / len(part), abs=1e-6)
        mixed = 0.3 * row["train/clean_loss"] + 0.7 * row["train/adv_loss"]
        assert row["train/loss"] == pytest.approx(mixed, abs=1e-6)
        assert row["train/adv_loss"] > row["train/clean_loss"]
    epoch = found(trainer, "train")["train/loss_epoch"]
    assert epoch == pytest.approx(sum(watch.losses) / len(watch.losses), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, r"alpha=1\.5.*\[0, 1\]"),
        ({"alpha": -0.1}, ValueError, r"alpha=-0\.1"),
        ({"alpha": math.nan}, ValueError, "alpha=nan"),
        ({"val_attack_samples": 0}, ValueError, r"val_attack_samples=0.*1"),
        ({"val_attack_every_n_epochs": 0}, ValueError, "val_attack_every_n_epochs=0"),
        ({"crafting": "both"}, ValueError, r"crafting='both'.*train.*eval"),
        ({"masks": "none"}, ValueError, r"masks='none'.*fresh.*shared"),
        ({"attack": "FGSM"}, TypeError, r"attack='FGSM'.*str.*FGSM\(eps=0\.25\)"),
        ({"val_attack": 0.25}, TypeError, r"attack=0\.25.*float"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AdversarialModule(**({"backbone": mlp(), "attack": None} | arguments))


def test_optimizer_gets_no_frozen_parameter() -> None:
    net = mlp()
    net[0].requires_grad_(False)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    module = AdversarialModule(net, FGSM(0.1), optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5))
    fit(module, batches(3))
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, start[name])}
    assert moved == {"2.weight", "2.bias"}
