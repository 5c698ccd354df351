"""Lightning's own switches: each works with the two-pass step or is refused clearly, as docs/lightning.md says."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    RichProgressBar,
    StochasticWeightAveraging,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.tuner import Tuner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from adv_lightning import FGSM, AdversarialCheckpoint, AdversarialEarlyStopping, AdversarialModule, SingleStepAttack
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.data import DigitsDataModule
from adv_lightning.models import SmallConvNet
from tests.support.helpers import quiet_trainer

ROOT = Path(__file__).parents[1]
EPS = 0.1
NO_DROPOUT = ["--model.backbone.input_dropout=0", "--model.backbone.dropout=0"]

VERDICTS: dict[str, str] = {}
"""Verdict of each switch that has a test here."""

Test = Callable[..., None]


def row(verdict: str, *switches: str) -> Callable[[Test], Test]:
    """Mark a test as that of rows of the table."""

    def mark(test: Test) -> Test:
        VERDICTS.update(dict.fromkeys(switches, verdict))
        return test

    return mark


def table() -> dict[str, str]:
    """Read the verdict of each switch from the table."""
    lines = (ROOT / "docs" / "lightning.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert all(len(line) == 3 for line in cells), "a row has three cells"
    names = [line[0] for line in cells]
    assert len(set(names)) == len(names), "a switch stands there once"
    return {name.replace("`", ""): verdict for name, verdict, _ in cells}


def test_each_row_of_the_table_has_its_test_and_each_test_its_row() -> None:
    assert {name: verdict for name, verdict in table().items() if verdict != "not tested"} == VERDICTS


# What the tests share


def net(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), *between, nn.Linear(16, 10))


def module(backbone: nn.Module | None = None, lr: float = 0.1, **kwargs: Any) -> AdversarialModule:
    kwargs = {"attack": FGSM(EPS), "optimizer": partial(torch.optim.SGD, lr=lr)} | kwargs
    return AdversarialModule(net() if backbone is None else backbone, **kwargs)


def trainer(**kwargs: Any) -> Trainer:
    return quiet_trainer(**({"limit_train_batches": 4, "limit_val_batches": 1, "limit_test_batches": 1} | kwargs))


def fit(model: AdversarialModule, data: DigitsDataModule | None = None, **kwargs: Any) -> Trainer:
    run = trainer(**kwargs)
    run.fit(model, datamodule=data or DigitsDataModule())
    return run


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


class Watch(Callback):
    """What a run does: events in order, labels of training batches, weights and losses after each."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.labels: list[list[int]] = []
        self.weights: list[Tensor] = []
        self.losses: list[float] = []
        self.validated: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert not any(name.startswith("val/") for name in trainer.callback_metrics)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.events.append("epoch")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        self.events.append("train")
        self.labels.append(args[0][1].tolist())
        self.weights.append(weights(pl_module))
        self.losses.append(outputs["loss"].item() * trainer.accumulate_grad_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("val")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated.append(trainer.global_step)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("test")


class Inputs:
    """The inputs of the clean and of the perturbed pass, in training."""

    def __init__(self, model: AdversarialModule) -> None:
        self.seen: list[Tensor] = []
        model.backbone.register_forward_pre_hook(self._hook)

    def _hook(self, backbone: nn.Module, args: tuple[Tensor, ...]) -> None:
        if backbone.training:
            self.seen.append(args[0].detach().clone())

    def perturbation(self) -> Tensor:
        return torch.stack([b.double() - a.double() for a, b in zip(self.seen[::2], self.seen[1::2], strict=True)])


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Undo what seeding and parsing leave in the environment, and work in an empty folder."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls older names of jsonargparse
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., AdversarialCLI]:
    """Run `fit` on a tiny network through the command line."""

    def run(*args: str) -> AdversarialCLI:
        return main(
            [
                "fit",
                f"--config={ROOT / 'configs' / 'digits.yaml'}",
                "--model.backbone.units=8",
                "--trainer.accelerator=cpu",
                "--trainer.max_epochs=1",
                "--trainer.limit_train_batches=4",
                "--trainer.log_every_n_steps=1",
                "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false",
                "--callbacks.pictures=null",
                "--test_after_fit=false",
                f"--trainer.default_root_dir={tmp_path / 'runs'}",
                *args,
            ]
        )

    return run


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def figures(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.rglob("metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# How long, how much


@row("works", "fast_dev_run=True")
def test_fast_dev_run(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    cli = command("--trainer.fast_dev_run=true", "--test_after_fit=true")
    assert cli.trainer.global_step == 1
    assert "test/adv_error" in cli.trainer.callback_metrics
    assert files(tmp_path) == []


@row("works", "overfit_batches=2")
@pytest.mark.filterwarnings("ignore:You requested to overfit")  # Lightning says that it stops the shuffling
def test_overfit_batches() -> None:
    watch = Watch()
    fit(module(lr=0.5), overfit_batches=2, limit_train_batches=1.0, max_epochs=5, callbacks=[watch])
    first, second = watch.labels[:2]
    assert first != second
    assert watch.labels == [first, second] * 5
    assert sum(watch.losses[-2:]) < 0.95 * sum(watch.losses[:2])


@row("works", "limit_train_batches", "limit_val_batches", "limit_test_batches")
def test_limits() -> None:
    watch, model, data = Watch(), module(), DigitsDataModule()
    run = trainer(limit_train_batches=3, limit_val_batches=2, limit_test_batches=1, callbacks=[watch])
    run.fit(model, datamodule=data)
    run.test(model, datamodule=data, verbose=False)
    assert watch.events == ["epoch", "train", "train", "train", "val", "val", "test"]


@row("works", "limit_val_batches=0")
def test_without_validation(tmp_path: Path) -> None:
    folder, kept = tmp_path / "kept", []

    class Look(Callback):
        def on_train_epoch_start(self, *args: Any) -> None:
            kept.append(files(folder))

    last = AdversarialCheckpoint(dirpath=folder)
    run = fit(module(), limit_val_batches=0, enable_checkpointing=True, callbacks=[last, Look()], max_epochs=2)
    assert [*kept, files(folder)] == [[], ["last.ckpt"], ["last.ckpt"]]
    assert torch.load(last.last_model_path, weights_only=True)["global_step"] == run.global_step == 8


@row("refused", "limit_val_batches=0 with early stopping")
def test_early_stopping_without_validation() -> None:
    message = r"watches val/adv_error, and there is no validation: .*callbacks.early_stopping=null"
    for data, limit in ((None, 0), (DigitsDataModule(val_size=0), 1)):
        with pytest.raises(ValueError, match=message):
            fit(module(), data, limit_val_batches=limit, callbacks=[AdversarialEarlyStopping()])


@row("works", "max_steps")
def test_max_steps() -> None:
    watch = Watch()
    run = fit(module(), max_epochs=-1, max_steps=5, accumulate_grad_batches=2, callbacks=[watch])
    assert (run.global_step, watch.events.count("train")) == (5, 10)


@row("works", "max_time")
def test_max_time(command: Callable[..., AdversarialCLI]) -> None:
    assert command("--trainer.max_time=00:00:00:00").trainer.global_step == 0
    assert command("--trainer.max_time=00:01:00:00").trainer.global_step == 4


@row("works", "log_every_n_steps=0")
def test_log_every_n_steps_0(tmp_path: Path) -> None:
    run = fit(module(), log_every_n_steps=0)
    assert "train/loss" not in run.callback_metrics
    assert "train/loss_epoch" in run.callback_metrics


# When validation runs


@row("works", "val_check_interval=0.5")
def test_val_check_interval(tmp_path: Path) -> None:
    watch, stopping = Watch(), AdversarialEarlyStopping(patience=2)
    best = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    # With a rate of 0 nothing improves: the first check is the best, the third is the second without improvement.
    run = fit(
        module(lr=0.0),
        val_check_interval=0.5,
        max_epochs=9,
        enable_checkpointing=True,
        callbacks=[watch, stopping, best],
    )
    assert watch.validated == [2, 4, 6]
    assert run.global_step == 6
    assert (stopping.best_epoch, stopping.stopped_epoch, stopping.wait_count) == (0, 1, 2)
    assert torch.load(best.best_model_path, weights_only=True)["global_step"] == 2


def test_stopping_in_the_first_epoch_is_said(caplog: pytest.LogCaptureFixture) -> None:
    run = fit(module(lr=0.0), val_check_interval=0.25, max_epochs=9, callbacks=[AdversarialEarlyStopping(patience=1)])
    assert run.global_step == 2
    assert "Stopped after epoch 0" in caplog.text


@row("works", "check_val_every_n_epoch=2")
def test_check_val_every_n_epoch() -> None:
    watch, stopping = Watch(), AdversarialEarlyStopping(patience=1)
    run = fit(module(lr=0.0), check_val_every_n_epoch=2, max_epochs=9, callbacks=[watch, stopping])
    assert watch.validated == [8, 16]
    assert (run.current_epoch, stopping.best_epoch) == (4, 1)


def test_an_epoch_that_measures_no_figure_still_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    kept = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    fit(module(val_attack_every_n_epochs=2), max_epochs=3, enable_checkpointing=True, callbacks=[kept])
    steps = {n: torch.load(tmp_path / "kept" / n, weights_only=True)["global_step"] for n in files(tmp_path / "kept")}
    assert steps == {"best.ckpt": 8, "last.ckpt": 12}


@row("works", "num_sanity_val_steps=2")
def test_num_sanity_val_steps() -> None:
    watch, stopping = Watch(), AdversarialEarlyStopping()
    fit(module(), num_sanity_val_steps=2, limit_val_batches=2, limit_train_batches=1, callbacks=[watch, stopping])
    assert watch.events == ["val", "val", "epoch", "train", "val", "val"]
    assert stopping.best_epoch == 0


@row("works", "reload_dataloaders_every_n_epochs=1")
def test_reload_dataloaders() -> None:
    def labels(every: int) -> tuple[list[list[int]], int]:
        watch, data, calls = Watch(), DigitsDataModule(), []
        make = data.train_dataloader
        data.train_dataloader = lambda: calls.append(1) or make()  # type: ignore[method-assign,func-returns-value]
        fit(module(), data, reload_dataloaders_every_n_epochs=every, max_epochs=2, callbacks=[watch])
        return watch.labels, len(calls)

    (kept, once), (reloaded, twice) = labels(0), labels(1)
    assert (once, twice) == (1, 2)
    assert kept == reloaded
    assert kept[:4] != kept[4:]


@row("refused", "several validation loaders", "several test loaders")
def test_several_loaders() -> None:
    class Two(DigitsDataModule):
        def val_dataloader(self) -> Any:
            return [super().val_dataloader(), super().val_dataloader()]

        def test_dataloader(self) -> Any:
            return [super().test_dataloader(), super().test_dataloader()]

    for stage, start in (
        ("validation", lambda: fit(module(), Two())),
        ("validation", lambda: trainer().validate(module(), datamodule=Two(), verbose=False)),
        ("test", lambda: trainer().test(module(), datamodule=Two(), verbose=False)),
    ):
        with pytest.raises(ValueError, match=f"there are several {stage} loaders.*ConcatDataset"):
            start()


@row("works", "several prediction loaders")
def test_several_prediction_loaders() -> None:
    class Two(DigitsDataModule):
        def predict_dataloader(self) -> Any:
            return [self.test_dataloader(), self.test_dataloader()]

    first, second = trainer(limit_predict_batches=2).predict(module(), datamodule=Two())
    assert [len(part) for part in first] == [100, 100]
    assert torch.equal(torch.cat(first), torch.cat(second))


# The step and the optimizer


@row("works", "accumulate_grad_batches=2")
def test_accumulate_grad_batches() -> None:
    def trained(size: int, accumulate: int) -> Tensor:
        model = module(net().double())
        kwargs = {"precision": "64-true", "limit_train_batches": 3 * accumulate}
        fit(model, DigitsDataModule(batch_size=size), accumulate_grad_batches=accumulate, **kwargs)
        return weights(model)

    assert not torch.equal(trained(100, 1), weights(net().double()))
    torch.testing.assert_close(trained(50, 2), trained(100, 1), rtol=0, atol=1e-14)


@row("works", "GradientAccumulationScheduler")
def test_gradient_accumulation_scheduler() -> None:
    run = fit(module(), max_epochs=2, callbacks=[GradientAccumulationScheduler({0: 1, 1: 2})])
    assert run.global_step == 4 + 2


@row("refused", "sync_batchnorm on the CPU")
def test_sync_batchnorm(command: Callable[..., AdversarialCLI], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("--trainer.sync_batchnorm=true", "--trainer.devices=2")
    assert "error: trainer.sync_batchnorm=true needs a GPU" in capsys.readouterr().err
    assert command("--trainer.sync_batchnorm=true", "--trainer.devices=1").trainer.global_step == 4


@row("works", "gradient_clip_val")
@pytest.mark.parametrize(("algorithm", "size"), [("norm", 2), ("value", torch.inf)])
def test_gradient_clip_val(algorithm: str, size: float) -> None:
    model = module(lr=1.0)
    before = weights(model)
    fit(model, limit_train_batches=1, gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm)
    assert (weights(model) - before).norm(p=size).item() == pytest.approx(1e-3, rel=1e-3)


@row("works", "LBFGS")
def test_lbfgs(command: Callable[..., AdversarialCLI]) -> None:
    optimizer = ["--model.optimizer=torch.optim.LBFGS", "--model.optimizer.lr=0.5", "--model.optimizer.max_iter=5"]
    cli = command(*optimizer, *NO_DROPOUT, "--trainer.max_epochs=2")
    (state,) = cli.trainer.optimizers[0].state.values()
    assert cli.trainer.global_step == 8
    assert state["func_evals"] >= 3 * cli.trainer.global_step
    assert cli.trainer.callback_metrics["val/loss"] < 0.9 * math.log(10)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x.flatten(1)).tanh()).tanh())


@row("works", "tied weights")
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


@row("works", "torch.utils.checkpoint, use_reentrant=False")
def test_gradient_checkpointing() -> None:
    model, reference = module(Checkpointed(use_reentrant=False)), module()
    fit(model)
    fit(reference)
    assert torch.equal(weights(model), weights(reference))


@row("refused", "torch.utils.checkpoint, use_reentrant=True")
def test_reentrant_gradient_checkpointing() -> None:
    with pytest.raises(RuntimeError, match="set use_reentrant=False"):
        fit(module(Checkpointed(use_reentrant=True)))


@row("works", "requires_grad_(False) on layers")
def test_frozen_layers() -> None:
    model = module()
    model.backbone[1].requires_grad_(False)
    before = {name: p.clone() for name, p in model.backbone.named_parameters()}
    fit(model)
    same = {name for name, p in model.backbone.named_parameters() if torch.equal(p, before[name])}
    assert same == {"1.weight", "1.bias"}


@pytest.fixture
def _deterministic() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@row("works", "deterministic=True")
@pytest.mark.usefixtures("_deterministic")
def test_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it, and leaves it set
    asked = []

    class Asked(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            asked.append(torch.are_deterministic_algorithms_enabled())

    def trained() -> Tensor:
        model = module(net(nn.Dropout(0.5)))
        fit(model, deterministic=True, callbacks=[Asked()])
        return weights(model)

    assert torch.equal(trained(), trained())
    assert asked == [True] * 8


class RootOfZero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (0 * x).sqrt()


@row("works", "detect_anomaly=True")
@pytest.mark.filterwarnings("ignore:Error detected in MulBackward0")  # what the switch is for
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.filterwarnings("ignore:.*leaves every input of the batch as it is")
def test_detect_anomaly() -> None:
    model = module(net(RootOfZero()))
    fit(model)
    assert weights(model).isnan().any()
    with pytest.raises(RuntimeError, match="'MulBackward0' returned nan values"):
        fit(module(net(RootOfZero())), detect_anomaly=True)


# Precision


@row("works", "precision=64-true")
def test_double_precision() -> None:
    model = module()
    inputs = Inputs(model)
    run = fit(model, precision="64-true")
    assert {x.dtype for x in inputs.seen} == {torch.float64}
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(inputs.perturbation().abs().amax().item(), EPS, rtol=0, atol=1e-15)
    assert run.callback_metrics["train/loss"].dtype == torch.float64


@row("works", "precision=bf16-mixed")
def test_bfloat16_mixed() -> None:
    model = module()
    inputs, kinds = Inputs(model), set()
    model.backbone.register_forward_hook(lambda _, args, logits: kinds.add(logits.dtype))
    fit(model, precision="bf16-mixed")
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(inputs.perturbation().abs().amax().item(), EPS, rtol=0, atol=1e-7)


@row("works", "precision=bf16-true", "precision=16-true")
@pytest.mark.parametrize(("precision", "rounding"), [("bf16-true", 2**-9), ("16-true", 2**-12)])
def test_half_precision_rounds_the_perturbation_and_says_so(precision: str, rounding: float) -> None:
    model, watch = module(), Watch()
    inputs = Inputs(model)
    with pytest.warns(UserWarning, match=f"rounded by up to {rounding:.1g}.*{precision[:-5]}-mixed"):
        run = fit(model, precision=precision, limit_train_batches=12, callbacks=[watch])
    moved = inputs.perturbation().abs()
    off = (moved[moved > 0] - EPS).abs().max().item()
    assert rounding / 4 < off <= 2 * rounding
    # The figures are summed in single precision.
    mean = run.callback_metrics["train/loss_epoch"]
    assert mean.item() == pytest.approx(sum(watch.losses) / 12, rel=1e-6)
    assert run.callback_metrics["val/loss"].dtype == torch.float32


@row("works", "precision=16-mixed on the CPU")
def test_half_precision_on_the_cpu() -> None:
    with pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'`"):
        run = fit(module(), precision="16-mixed")
    assert run.precision == "bf16-mixed"


# What is shown and kept


@row("works", "profiler=simple")
def test_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(module(), profiler="simple")
    assert len(run.profiler.recorded_durations["[Strategy]SingleDeviceStrategy.training_step"]) == 4
    assert len(run.profiler.recorded_durations["[Strategy]SingleDeviceStrategy.backward"]) == 4


@row("works", "barebones=True")
@pytest.mark.filterwarnings("ignore:You are trying to `self.log..` but `Trainer.barebones=True.`")  # said by Lightning
def test_barebones(tmp_path: Path) -> None:
    model = module()
    before = weights(model)
    run = Trainer(accelerator="cpu", barebones=True, max_epochs=1, limit_train_batches=4, limit_val_batches=1)
    run.fit(model, datamodule=DigitsDataModule())
    assert run.global_step == 4
    assert run.callback_metrics == {}
    assert not torch.equal(weights(model), before)
    assert files(tmp_path) == []


@pytest.mark.filterwarnings("ignore:You are trying to `self.log..` but `Trainer.barebones=True.`")  # said by Lightning
def test_barebones_on_the_command_line(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    off = [f"--trainer.{name}=false" for name in ("logger", "enable_checkpointing")]
    command("--trainer.barebones=true", *off, "--trainer.log_every_n_steps=null", "--callbacks.early_stopping=null")
    assert files(tmp_path) == []


@row("works", "logger=False")
def test_no_logger(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    cli = command("--trainer.logger=false", "--test_after_fit=true")
    assert "test/adv_error" in cli.trainer.callback_metrics
    assert files(tmp_path) == ["best.ckpt", "last.ckpt"]


@row("works", "logger=CSVLogger")
def test_csv_logger(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    cli = command("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}")
    (written,) = (row["val/adv_error"] for row in figures(tmp_path / "csv") if row["val/adv_error"])
    assert float(written) == pytest.approx(cli.trainer.callback_metrics["val/adv_error"].item())
    assert [row["step"] for row in figures(tmp_path / "csv") if row["train/adv_loss"]] == ["0", "1", "2", "3"]
    run = [".training.lock", "best.ckpt", "config.yaml", "hparams.yaml", "last.ckpt", "metrics.csv"]
    assert files(tmp_path) == run


@row("works", "two loggers")
def test_two_loggers(tmp_path: Path) -> None:
    run = fit(module(), logger=[CSVLogger(tmp_path / "a"), TensorBoardLogger(tmp_path / "b")])
    (written,) = (float(row["val/adv_error"]) for row in figures(tmp_path / "a") if row["val/adv_error"])
    (events,) = (tmp_path / "b").rglob("events*")
    (scalar,) = EventAccumulator(str(events)).Reload().Scalars("val/adv_error")
    assert written == pytest.approx(scalar.value) == pytest.approx(run.callback_metrics["val/adv_error"].item())


@row("works", "enable_checkpointing=False")
def test_no_checkpoints(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    cli = command("--trainer.enable_checkpointing=false", "--test_after_fit=true")
    assert "test/adv_error" in cli.trainer.callback_metrics
    assert list(tmp_path.rglob("*.ckpt")) == []


@row("works", "enable_progress_bar", "RichProgressBar", "TQDMProgressBar")
@pytest.mark.parametrize("bar", [None, RichProgressBar(), TQDMProgressBar()], ids=["off", "rich", "tqdm"])
def test_progress_bar(bar: Callback | None, capsys: pytest.CaptureFixture[str]) -> None:
    fit(module(), enable_progress_bar=bar is not None, callbacks=[] if bar is None else [bar])
    shown = "".join(capsys.readouterr())
    assert ("val/adv_error" in shown) == (bar is not None)


@row("works", "enable_model_summary")
@pytest.mark.parametrize("enabled", [False, True])
def test_model_summary(enabled: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    fit(module(), enable_model_summary=enabled)
    assert ("Trainable params" in "".join(capsys.readouterr()) + caplog.text) == enabled


@row("works", "LearningRateMonitor")
def test_learning_rate_monitor(tmp_path: Path) -> None:
    halved = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    model = module(lr=0.8, lr_scheduler=halved, lr_interval="step")
    fit(model, logger=CSVLogger(tmp_path), callbacks=[LearningRateMonitor("step")])
    rates = [float(row["lr-SGD"]) for row in figures(tmp_path) if row["lr-SGD"]]
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1])


@row("works", "inference_mode=False")
def test_inference_mode() -> None:
    def judged(inference_mode: bool) -> dict[str, float]:
        run = trainer(inference_mode=inference_mode)
        (found,) = run.test(module(), datamodule=DigitsDataModule(), verbose=False)
        run.predict(module(predict_attacked=True), datamodule=DigitsDataModule())
        return dict(found)

    assert judged(False) == judged(True)
    assert judged(False)["test/adv_error"] > 0


@row("works", "ckpt_path")
def test_resuming(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    whole = command("--trainer.max_epochs=2").model
    command(f"--trainer.default_root_dir={tmp_path / 'cut'}")
    (last,) = (tmp_path / "cut").rglob("last.ckpt")
    further = [f"--ckpt_path={last}", "--trainer.max_epochs=2", f"--trainer.default_root_dir={tmp_path / 'on'}"]
    resumed = command(*further)
    assert resumed.trainer.global_step == 8
    assert torch.equal(weights(resumed.model), weights(whole))


# Averages, fine-tuning, tuning


@row("works", "StochasticWeightAveraging")
@pytest.mark.parametrize("norm", [False, True])
def test_stochastic_weight_averaging(norm: bool, tmp_path: Path) -> None:
    watch, model = Watch(), module(net(nn.BatchNorm1d(16)) if norm else None)
    kept = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    # An int counts from 1: epochs 2 and 3 of 3, and the weights that each starts with.
    average = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2)
    fit(model, max_epochs=3, enable_checkpointing=True, callbacks=[watch, average, kept])
    averaged = (watch.weights[3] + watch.weights[7]) / 2
    torch.testing.assert_close(weights(model), averaged, rtol=0, atol=1e-6)
    if norm:
        # One more epoch, of both passes, measures the statistics of the averaged weights.
        assert model.backbone[3].num_batches_tracked == 2 * 4
    else:
        last = AdversarialModule.load_from_checkpoint(kept.last_model_path, backbone=net())
        assert torch.equal(weights(last), watch.weights[-1])


def test_averaging_on_the_command_line(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    average = ["--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"]
    command(*average, "--trainer.callbacks.device=null")
    (config,) = tmp_path.rglob("config.yaml")
    again = main(["fit", f"--config={config}"]).trainer
    assert again.global_step == 4
    assert any(isinstance(callback, StochasticWeightAveraging) for callback in again.callbacks)


@row("works", "EMAWeightAveraging", "WeightAveraging")
@pytest.mark.parametrize("kind", [EMAWeightAveraging, WeightAveraging])
def test_weight_averaging(kind: type[WeightAveraging], tmp_path: Path) -> None:
    watch, model = Watch(), module()
    average = EMAWeightAveraging(decay=0.5) if kind is EMAWeightAveraging else WeightAveraging()
    best = AdversarialCheckpoint(dirpath=tmp_path / "kept")
    run = fit(model, enable_checkpointing=True, callbacks=[watch, average, best])
    expected = watch.weights[0]
    for n, new in enumerate(watch.weights[1:], start=1):
        share = 0.5 if kind is EMAWeightAveraging else 1 / (n + 1)
        expected = (1 - share) * expected + share * new
    torch.testing.assert_close(weights(model), expected, rtol=0, atol=1e-6)
    # What was judged, and what the best checkpoint holds, are the averaged weights.
    kept = AdversarialModule.load_from_checkpoint(best.best_model_path, backbone=net())
    torch.testing.assert_close(weights(kept), expected, rtol=0, atol=1e-6)
    (again,) = trainer().validate(kept, datamodule=DigitsDataModule(), verbose=False)
    assert again["val/loss"] == pytest.approx(run.callback_metrics["val/loss"].item(), abs=1e-6)


@row("works", "EMAWeightAveraging")
def test_averaged_weights_are_tested_after_fit(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    average = ["--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging", "--trainer.callbacks.decay=0.8"]
    figures = command("--test_after_fit=true", *average).trainer.callback_metrics
    (best,) = tmp_path.rglob("best.ckpt")
    judged = main(["test", f"--ckpt_path={best}", "--trainer.logger=false", "--trainer.enable_progress_bar=false"])
    assert isinstance(judged, AdversarialCLI)
    for name, figure in judged.trainer.callback_metrics.items():
        assert figures[name].item() == figure.item()


class Unfreeze(BaseFinetuning):
    """Freezes the first layer until epoch 1."""

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        self.freeze(pl_module.backbone[1])

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone[1], optimizer)


class Headed(AdversarialModule):
    """A head beside the backbone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def frozen_until(model: AdversarialModule, layer: nn.Linear, callback: Callback) -> list[bool]:
    """Train two epochs and tell after each whether the layer is as it was."""
    before, same = layer.weight.detach().clone(), []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            same.append(torch.equal(layer.weight, before))

    fit(model, max_epochs=2, callbacks=[callback, Look()])
    return same


@row("works", "BaseFinetuning of some layers")
def test_layers_unfrozen_in_mid_training() -> None:
    model = module()
    assert frozen_until(model, model.backbone[1], Unfreeze()) == [True, False]


@row("works", "BackboneFinetuning, head in a subclass")
def test_backbone_finetuning_with_a_head_of_its_own() -> None:
    model = Headed(backbone=net()[:3], attack=FGSM(EPS), optimizer=partial(torch.optim.SGD, lr=0.1))
    assert frozen_until(model, model.backbone[1], BackboneFinetuning(unfreeze_backbone_at_epoch=1)) == [True, False]


@row("refused", "BackboneFinetuning")
def test_backbone_finetuning_of_the_whole_network() -> None:
    with pytest.raises(ValueError, match=r"nothing to train.*BackboneFinetuning freezes all of `backbone`"):
        fit(module(), callbacks=[BackboneFinetuning()])


@row("refused", "Tuner.lr_find")
def test_lr_find() -> None:
    with pytest.raises(AttributeError, match=r"either `model` or `model.hparams` should have one of these fields"):
        Tuner(trainer()).lr_find(module(), datamodule=DigitsDataModule())


class Tunable(AdversarialModule):
    """A rate that the tuner can see, as in the documentation."""

    def __init__(self, lr: float = 0.1, **kwargs: Any) -> None:
        super().__init__(optimizer=lambda params: torch.optim.SGD(params, lr=self.lr), **kwargs)
        self.lr = lr


@row("works", "Tuner.lr_find, lr in a subclass")
def test_lr_find_with_a_rate(tmp_path: Path) -> None:
    model = Tunable(backbone=net(), attack=FGSM(EPS))
    before = weights(model)
    run = trainer(limit_train_batches=1.0, max_epochs=9, default_root_dir=tmp_path)
    found = Tuner(run).lr_find(model, datamodule=DigitsDataModule(), num_training=30, min_lr=1e-4, max_lr=10)
    assert found.suggestion() == model.lr != 0.1
    assert torch.equal(weights(model), before)
    fit(model, limit_train_batches=1)
    assert not torch.equal(weights(model), before)


@row("works", "Tuner.scale_batch_size")
def test_scale_batch_size(command: Callable[..., AdversarialCLI], tmp_path: Path) -> None:
    cli = command("--trainer.fast_dev_run=true", "--data.batch_size=10")
    before = weights(cli.model)
    run = trainer(default_root_dir=tmp_path)
    size = Tuner(run).scale_batch_size(
        cli.model, datamodule=cli.datamodule, init_val=10, max_trials=3, steps_per_trial=1
    )
    assert size == cli.datamodule.batch_size == 40
    assert torch.equal(weights(cli.model), before)
    assert files(tmp_path) == []


@row("works", "backbone.compile()")
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)  # inductor calls a compiler
def test_compile(backend: str) -> None:
    model, reference = module(), module()
    model.backbone.compile(backend=backend)
    fit(model)
    fit(reference)
    assert model.state_dict().keys() == reference.state_dict().keys()
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-4, atol=1e-6)


class Step(SingleStepAttack):
    """A step that training may go through."""

    differentiable = True

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return value + EPS * grad


@row("works", "model.compiled=true")
@pytest.mark.slow  # inductor calls a compiler
def test_compiled_by_a_key(command: Callable[..., AdversarialCLI]) -> None:
    arguments = ["--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1", *NO_DROPOUT]
    plain, compiled = command(*arguments), command(*arguments, "--model.compiled=true")
    torch.testing.assert_close(weights(compiled.model), weights(plain.model), rtol=1e-4, atol=1e-6)
    path = compiled.trainer.checkpoint_callback.best_model_path
    again = AdversarialModule.load_from_checkpoint(path)
    assert again.compiled
    assert torch.equal(weights(again), weights(compiled.model))


def test_the_key_compiles_the_backbone_in_place() -> None:
    model = module(compiled=True)
    assert model.backbone._compiled_call_impl is not None
    assert model.state_dict().keys() == module().state_dict().keys()
    assert module().backbone._compiled_call_impl is None


@row("refused", "model.compiled=true, differentiable attack")
@pytest.mark.parametrize("compiled", [{"compiled": True}, {"backbone": torch.compile(net())}])
def test_a_compiled_network_has_no_second_derivative(compiled: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"'backbone' is compiled, and torch\.compile has no second derivative"):
        fit(module(attack=Step(), **compiled))


@row("works", "model.channels_last=true")
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_channels_last(precision: Any) -> None:
    seen = []

    def run(channels_last: bool) -> AdversarialModule:
        torch.manual_seed(0)
        model = module(SmallConvNet(num_classes=10, input_shape=(1, 8, 8)), channels_last=channels_last)
        convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
        convolution.register_forward_pre_hook(
            lambda m, x: seen.append(x[0].is_contiguous(memory_format=torch.channels_last))
        )
        fit(model, precision=precision, limit_train_batches=2)
        return model

    last = run(True)
    assert all(seen)
    seen.clear()
    first = run(False)
    assert not any(seen)
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if precision == "64-true" else {"rtol": 0.05, "atol": 5e-3}
    torch.testing.assert_close(weights(last), weights(first), **tolerance)
