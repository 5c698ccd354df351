"""What a step costs beside the network, in Lightning and here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning.models import SoftmaxRegression
from benchmarks.epochs import RandomImages, Stopwatch, aside, command_line, hand_epoch
from benchmarks.report import Bar, Section, Table
from benchmarks.steps import OURS, clean, hand, sgd
from benchmarks.timing import Run, Spread


class Plain(LightningModule):
    """Plain training, as a Lightning user writes it.

    Args:
        net: The network.
        logged: Number of values to log each step.
    """

    def __init__(self, net: nn.Module, logged: int) -> None:
        super().__init__()
        self.net = net
        self.logged = logged

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        for n in range(self.logged):
            self.log(f"train/value{n}", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return sgd(self)


def measure(run: Run) -> Section:
    """Time what Lightning and this project add to a step that costs next to nothing."""
    steps = 20 if run.quick else 300
    rounds = run.rounds_of(10)
    watches: dict[str, Callable[[Run, str, int, int], Stopwatch]] = {
        "Lightning, all off": partial(_plain, logged=0),
        f"{OURS}, all on but pictures": _project,
        "Lightning, three values logged a step": partial(_plain, logged=3),
    }
    columns = ["softmax regression, 64 inputs", "by hand, ms a step", "Trainer, ms a step", "above, ms a step"]
    table = Table([*columns, "at an epoch's end, ms"])
    section = Section("What a step costs beside the network", [table], [NOTE])
    for name, watched in watches.items():
        with aside() as folder:
            watch = watched(run, folder, rounds, steps)
        each = {"by hand": watch.hand, "Trainer": watch.steps}
        each["above"] = [b - a for a, b in zip(watch.hand, watch.steps, strict=True)]
        found = {kind: Spread.of([value / steps for value in values]) for kind, values in each.items()}
        end = Spread.of([b - a for a, b in zip(watch.steps, watch.epochs, strict=True)])
        table.rows.append([name, *(spread.show(1e3) for spread in (*found.values(), end))])
        section.raw |= {f"{name}: {kind}": spread for kind, spread in found.items()} | {f"{name}: epoch's end": end}
        if name.startswith(OURS):
            bar = Bar("a step beside the network: everything on but pictures, ms", 1e3 * found["above"].median, 0.7)
            section.bars.append(bar)
    return section


def _plain(run: Run, folder: str, rounds: int, steps: int, logged: int) -> Stopwatch:
    data = RandomImages(steps, 8)
    module = Plain(SoftmaxRegression(input_shape=data.input_shape), logged)
    watch = Stopwatch(run, hand_epoch(clean, copy.deepcopy(module.net).to(run.device), data, run.device))
    trainer = Trainer(
        accelerator="gpu" if run.device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=rounds + 1,
        default_root_dir=folder,
        logger=TensorBoardLogger(folder) if logged else False,
        enable_checkpointing=bool(logged),
        enable_progress_bar=bool(logged),
        enable_model_summary=False,
    )
    watch.fit(trainer, module, data)
    return watch


def _project(run: Run, folder: str, rounds: int, steps: int) -> Stopwatch:
    data = ["--data=benchmarks.epochs.RandomImages", f"--data.steps={steps}", "--data.size=8"]
    cli = command_line(run, folder, rounds + 1, "--model.backbone=SoftmaxRegression", *data)
    net = copy.deepcopy(cli.model.backbone).to(run.device)
    watch = Stopwatch(run, hand_epoch(hand, net, cli.datamodule, run.device))
    watch.fit(cli.trainer, cli.model, cli.datamodule)
    return watch


NOTE = """\
Above: Trainer less the hand-written loop of the same passes, in turns of 20 steps. All off: one forward and one \
backward pass, no callback, no logger. Three values logged: the same with `self.log` three times a step, TensorBoard, \
progress bar and checkpoints. The last column is what follows an epoch's last step beside validation: the epoch's \
figures, and checkpoints."""
