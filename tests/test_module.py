from __future__ import annotations

import copy
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
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, Objective
from tests.support.helpers import Batch, Batches, Counter, Snapshot, batches, fit, mlp, quiet_trainer

# Some networks here have a layer in eval mode on purpose.
mixed_modes = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode at the start of training")

SGD = partial(torch.optim.SGD, lr=0.1)


def norm_net() -> nn.Sequential:
    """BatchNorm, dropout and mixed modes, in float64."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3),
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3),
    ).double()  # fmt: skip
    net[5].eval()
    return net


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def adversarial(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)
    return x + eps * grad.sign()


def mixed_loss(net: nn.Module, batch: Batch, alpha: float, eps: float) -> Tensor:
    x, y = batch
    x_adv = adversarial(net, x, y, eps)
    return alpha * F.cross_entropy(net(x), y) + (1 - alpha) * F.cross_entropy(net(x_adv), y)


# Training equals loops written by hand


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_equal_those_of_a_loop(alpha: float, clip: float | None, accumulate: int) -> None:
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


def test_lbfgs_equals_torchs_own() -> None:
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


def test_a_penalty_is_added_outside_of_the_attacks_gradient() -> None:
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


def test_one_step_takes_two_forward_and_two_backward_passes() -> None:
    net = mlp()
    counter = Counter(net[0])
    fit(AdversarialModule(net, FGSM(0.1)), batches(5))
    assert (counter.forward, counter.backward) == (10, 10)


@mixed_modes
def test_the_same_seed_gives_the_same_weights() -> None:
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
def test_pgd_trains_in_passes_of_its_own(crafting: str, steps: int) -> None:
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
def test_crafting_with_pgd_leaves_batch_norm_and_modes_alone(crafting: str, statistics: str, updates: int) -> None:
    net = norm_net()
    modes = Snapshot(net).modes
    frozen = {name: value.clone() for name, value in net[5].named_buffers()}
    module = AdversarialModule(net, PGD(0.1, steps=3), crafting=crafting, statistics=statistics)  # type: ignore[arg-type]
    fit(module, batches(4), batches(2))
    assert net[1].num_batches_tracked == 4 * updates
    assert all(torch.equal(value, frozen[name]) for name, value in net[5].named_buffers())
    assert Snapshot(net).modes == modes


def test_with_alpha_1_no_attack_crafts() -> None:
    net = mlp()
    counter = Counter(net[0])
    fit(AdversarialModule(net, PGD(0.1, steps=3), alpha=1.0), batches(4))
    assert (counter.forward, counter.backward) == (4, 4)


# Schedulers


class Rates(Callback):
    """The learning rate at the start of each batch and epoch."""

    def __init__(self) -> None:
        self.batches: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.batches.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(("interval", "rates"), [("step", [1, 0.5, 0.25, 0.125]), ("epoch", [1, 1, 0.5, 0.5])])
def test_the_scheduler_steps_by_epoch_or_by_step(interval: str, rates: list[float]) -> None:
    seen = Rates()
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    optimizer = partial(torch.optim.SGD, lr=1.0)
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=optimizer, lr_scheduler=schedule, lr_interval=interval)  # type: ignore[arg-type]
    fit(module, batches(2), max_epochs=2, callbacks=[seen])
    assert seen.batches == rates


def test_a_scheduler_may_watch_the_adversarial_error() -> None:
    seen = Rates()
    plateau = partial(ReduceLROnPlateau, monitor="val/adv_error", patience=0, factor=0.1)
    module = AdversarialModule(
        mlp(), FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=1e-12), lr_scheduler=plateau
    )  # fmt: skip
    fit(module, batches(1), batches(2), max_epochs=4, callbacks=[seen])
    assert seen.batches == pytest.approx([1e-12, 1e-12, 1e-13, 1e-14], rel=1e-6)


# What is judged


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
def test_figures_equal_those_by_hand_in_every_loop(attack: Attack) -> None:
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


def test_val_attack_is_the_training_attack_unless_given() -> None:
    loader = batches(3)
    for attack, val_attack, judge in [(FGSM(0.1), None, FGSM(0.1)), (FGSM(0.1), FGSM(0.4), FGSM(0.4))]:
        net = mlp()
        trainer = fit(AdversarialModule(net, attack, val_attack=val_attack), loader, loader)
        assert found(trainer, "val") == keyed("val", by_hand(net, loader, judge))


def test_plain_training_under_judgement() -> None:
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


def test_without_any_attack_no_adversarial_figure_is_logged() -> None:
    module = AdversarialModule(mlp(), None)
    trainer = fit(module, batches(3), batches(2))
    assert set(found(trainer, "val")) == {"val/error", "val/loss"}
    trainer.test(module, batches(2), verbose=False)
    assert set(found(trainer, "test")) == {"test/error", "test/loss"}


def test_confidence_is_not_logged_without_a_mistake() -> None:
    net = nn.Linear(3, 3, bias=False).double()
    nn.init.eye_(net.weight)
    x, y = 10 * torch.eye(3, dtype=torch.float64), torch.arange(3)
    trainer = quiet_trainer()
    trainer.validate(AdversarialModule(net, FGSM(0.1)), Batches((x, y)), verbose=False)
    assert found(trainer, "val").keys() == {"val/loss", "val/error", "val/adv_error"}
    assert found(trainer, "val")["val/adv_error"] == 0
    trainer.validate(AdversarialModule(net, FGSM(20)), Batches((x, y)), verbose=False)
    assert found(trainer, "val")["val/adv_error"] == 1
    assert found(trainer, "val")["val/adv_confidence"] == pytest.approx(0.5)  # the two other classes tie


class Totals(Callback):
    """How many examples were judged in each loop, clean and under attack."""

    def __init__(self) -> None:
        self.totals: list[tuple[int, int]] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.totals.append((int(pl_module.epoch_metrics.error.total), int(pl_module.epoch_metrics.adv_error.total)))

    on_test_epoch_end = on_validation_epoch_end


@pytest.mark.parametrize("samples", [5, 8, 11, 16, 99])
def test_only_the_first_samples_are_attacked(samples: int) -> None:
    net, loader, seen = mlp(), batches(2), Totals()
    module = AdversarialModule(net, FGSM(0.3), val_attack_samples=samples)
    trainer = fit(module, batches(1), loader, max_epochs=2, callbacks=[seen])
    assert found(trainer, "val") == keyed("val", by_hand(net, loader, FGSM(0.3), min(samples, 16)))
    trainer.test(module, loader, verbose=False)
    assert seen.totals == [(16, min(samples, 16))] * 2 + [(16, 16)]


class CountedFGSM(FGSM):
    """Counts its steps and keeps the last result."""

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        self.x_adv = super().step(value, grad)
        return self.x_adv


def test_attacks_only_every_n_epochs() -> None:
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


def test_prediction_gives_clean_probabilities_and_attacked_ones_on_request() -> None:
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
def test_evaluation_leaves_the_network_as_it_was_in_all_four_loops(attack: Attack) -> None:
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


# Half precision


@pytest.mark.parametrize("attack", [CountedFGSM(0.1), PGD(0.1, steps=2)], ids=["FGSM", "PGD"])
def test_fit_validate_and_test_in_bfloat16(attack: Attack) -> None:
    torch.manual_seed(0)
    net, loader = mlp().float(), batches(3, dtype=torch.float32)
    start = weights(net)
    module = AdversarialModule(net, attack, optimizer=SGD)
    trainer = fit(module, loader, loader, precision="bf16-mixed", max_epochs=2)
    trainer.validate(module, loader, verbose=False)
    trainer.test(module, loader, verbose=False)
    assert weights(net).isfinite().all()
    assert not torch.equal(weights(net), start)
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("loop", ["validate", "test", "fit"])
def test_the_gradient_under_autocast_is_right(loop: str) -> None:
    net, attack, loader = mlp().float(), CountedFGSM(0.1), batches(1, size=64, dtype=torch.float32)
    ((x, y),) = loader
    module = AdversarialModule(net, None, val_attack=attack, optimizer=partial(torch.optim.SGD, lr=0.0))
    if loop == "fit":
        fit(module, loader, loader, precision="bf16-mixed")
    else:
        getattr(quiet_trainer(precision="bf16-mixed"), loop)(module, loader, verbose=False)
    assert attack.calls == 1
    with torch.autocast("cpu", torch.bfloat16):
        expected = adversarial(copy.deepcopy(net), x, y, 0.1)
    assert attack.x_adv.dtype == torch.float32
    assert torch.equal(attack.x_adv, expected)
    assert (attack.x_adv == adversarial(net, x, y, 0.1)).float().mean() > 0.97


def test_bfloat16_training_is_near_float32() -> None:
    loader = batches(10, dtype=torch.float32)
    results = []
    for precision in ("32-true", "bf16-mixed"):
        module = AdversarialModule(mlp().float(), FGSM(0.1), optimizer=SGD)
        fit(module, loader, precision=precision)
        results.append(weights(module) - weights(mlp().float()))
    assert F.cosine_similarity(*results, dim=0) > 0.99


# What a user overrides


def test_overrides_of_unpack_and_loss() -> None:
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


def test_an_override_of_the_objective_is_what_is_trained_and_logged() -> None:
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


def test_a_plain_callable_is_a_loss() -> None:
    def loss_fn(logits: Tensor, y: Tensor) -> Tensor:
        return F.multi_margin_loss(logits, y)

    net, loader = mlp(), batches(2)
    trainer = quiet_trainer()
    trainer.validate(AdversarialModule(net, FGSM(0.1), loss_fn=loss_fn), loader, verbose=False)
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert found(trainer, "val")["val/loss"] == pytest.approx(loss_fn(net(x), y).item(), abs=1e-6)


# What is logged, and how often


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


def test_logs_no_more_often_than_every_n_steps(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_losses_are_means_since_the_last_log_and_over_the_epoch(accumulate: int, tmp_path: Path) -> None:
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


# Checkpoints


def saved(tmp_path: Path, module: AdversarialModule) -> Path:
    path = tmp_path / "module.ckpt"
    fit(module, batches(3), batches(1)).save_checkpoint(path)
    return path


def test_a_module_built_in_python_is_rebuilt_from_its_checkpoint(tmp_path: Path) -> None:
    module = AdversarialModule(
        mlp(), FGSM("8/255", bounds=(-3, 3)), alpha=0.3, val_attack=PGD(0.2, steps=3), crafting="eval", masks="shared",
        statistics="clean", lr_interval="step", val_attack_samples=5, val_attack_every_n_epochs=2,
        predict_attacked=True,
    )  # fmt: skip
    path = saved(tmp_path, module)
    again = AdversarialModule.load_from_checkpoint(path, backbone=mlp(seed=9))
    x = next(iter(batches(1)))[0]
    assert torch.equal(again(x), module(x))
    assert isinstance(again.attack, FGSM)
    assert isinstance(again.val_attack, PGD)
    assert again.attack.config() == module.attack.config()
    assert again.val_attack.config() == module.val_attack.config()
    for name in (
        "alpha", "passes", "lr_interval", "val_attack_samples", "val_attack_every_n_epochs", "predict_attacked"
    ):  # fmt: skip
        assert getattr(again, name) == getattr(module, name), name
    changed = AdversarialModule.load_from_checkpoint(path, backbone=mlp(), alpha=0.9, attack=FGSM(0.5))
    assert changed.alpha == 0.9
    assert changed.attack.eps == 0.5


def test_without_the_backbone_loading_says_what_to_pass(tmp_path: Path) -> None:
    path = saved(tmp_path, AdversarialModule(mlp(), FGSM(0.1)))
    with pytest.raises(
        TypeError, match=r"pass the network, AdversarialModule\.load_from_checkpoint\(path, backbone=net\)"
    ):
        AdversarialModule.load_from_checkpoint(path)


def test_a_checkpoint_is_read_safely_and_carries_its_format(tmp_path: Path) -> None:
    path = saved(tmp_path, AdversarialModule(mlp(), FGSM(0.1)))
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["adv_lightning_format"] == 2
    assert checkpoint["hyper_parameters"]["attack"] == FGSM(0.1).config()
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"backbone"}


def test_a_format_from_the_future_is_refused(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    path = saved(tmp_path, module)
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"adv_lightning_format": 3}, path)
    with pytest.raises(ValueError, match="format 2, and this adv_lightning reads up to 1"):
        AdversarialModule.load_from_checkpoint(path, backbone=mlp())
    with pytest.raises(ValueError, match="format 2"):
        quiet_trainer().test(module, batches(1), ckpt_path=path, verbose=False)


def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    loader, path = batches(4), tmp_path / "half.ckpt"
    whole = AdversarialModule(mlp(), FGSM(0.1))
    fit(whole, loader, max_epochs=4)
    half = AdversarialModule(mlp(), FGSM(0.1))
    fit(half, loader, max_epochs=2).save_checkpoint(path)
    rest = AdversarialModule(mlp(seed=5), FGSM(0.1))
    quiet_trainer(max_epochs=4, limit_val_batches=0).fit(rest, loader, loader, ckpt_path=path)
    assert torch.equal(weights(rest), weights(whole))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, r"alpha=1\.5: give a number in \[0, 1\]"),
        ({"alpha": -0.1}, ValueError, r"alpha=-0\.1"),
        ({"alpha": math.nan}, ValueError, "alpha=nan"),
        ({"val_attack_samples": 0}, ValueError, "val_attack_samples=0: give a number at least 1"),
        ({"val_attack_every_n_epochs": 0}, ValueError, "val_attack_every_n_epochs=0"),
        ({"crafting": "both"}, ValueError, "crafting='both': give one of train, eval"),
        ({"masks": "none"}, ValueError, "masks='none': give one of fresh, shared"),
        ({"attack": "FGSM"}, TypeError, r"attack='FGSM' is a str: pass an Attack such as FGSM\(eps=0\.25\)"),
        ({"val_attack": 0.25}, TypeError, r"attack=0\.25 is a float"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AdversarialModule(**({"backbone": mlp(), "attack": None} | arguments))


def test_a_frozen_parameter_is_not_given_to_the_optimizer() -> None:
    net = mlp()
    net[0].requires_grad_(False)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    module = AdversarialModule(net, FGSM(0.1), optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5))
    fit(module, batches(3))
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, start[name])}
    assert moved == {"2.weight", "2.bias"}
