"""Whole epochs of Lightning's Trainer against loops written by hand."""

# mypy: disable-error-code="no-untyped-call"
# torch leaves `split` untyped.

from __future__ import annotations

import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import islice
from typing import Any, Literal
from unittest import mock

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from adv_lightning import AdversarialCLI
from adv_lightning.data import ImageDataModule
from benchmarks.peers import ALPHA, EPS
from benchmarks.report import Bar, Section, Table
from benchmarks.steps import Step, hand, sgd
from benchmarks.timing import Run, Spread, figure

BATCH = 100


class RandomImages(ImageDataModule):
    """Random pixels with random labels of ten classes, one batch of them for validation.

    Args:
        steps: Batches in an epoch.
        size: Height and width.
        **kwargs: See `ImageDataModule`.
    """

    all_class_names = tuple("0123456789")

    def __init__(self, steps: int = 600, size: int = 28, **kwargs: Any) -> None:
        super().__init__(**({"batch_size": BATCH, "val_size": BATCH} | kwargs))
        self.steps = steps
        self.input_shape = (1, size, size)

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        number = self.steps * self.batch_size + self.val_size
        images = torch.randint(256, (number, *self.input_shape), dtype=torch.uint8, generator=generator)
        return images, torch.randint(10, (number,), generator=generator)


class Stopwatch(Callback):
    """Times the Trainer's epochs, and in between its batches those of a loop written by hand.

    The two take turns of a few steps, since a machine's speed may drift over an epoch; each clock stands still while
    the other runs. `steps` are from an epoch's start to the end of its last step; `epochs` from its start to that of
    the next, so with its last figures and checkpoints. Neither has the validation.

    Args:
        run: How to measure.
        by_hand: Begins an epoch of the other loop, which yields after each step.
    """

    TURN = 20

    def __init__(self, run: Run, by_hand: Callable[[], Iterator[None]]) -> None:
        self.run = run
        self.by_hand = by_hand
        self.hand: list[float] = []
        self.steps: list[float] = []
        self.epochs: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.hand:
            self._finish()
        self.loop = self.by_hand()
        self.hand.append(0.0)
        self.start = self.run.now()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.TURN == 0:
            begin = self.run.now()
            for _ in islice(self.loop, min(self.TURN, int(trainer.num_training_batches) - batch_idx)):
                pass
            seconds = self.run.now() - begin
            self.hand[-1] += seconds
            self.start += seconds

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.is_last_batch:
            self.steps.append(self.run.now() - self.start)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pause = self.run.now()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.start += self.run.now() - self.pause

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish()

    def _finish(self) -> None:
        self.epochs.append(self.run.now() - self.start)

    def fit(self, trainer: Trainer, module: LightningModule, data: ImageDataModule) -> None:
        """Train; the first epoch of both warms up and does not count."""
        trainer.callbacks.insert(0, self)  # type: ignore[attr-defined]  # set by the callback connector
        trainer.fit(module, datamodule=data)
        for values in (self.hand, self.steps, self.epochs):
            del values[0]


class _Terminal(io.TextIOBase):
    """A terminal that nobody looks at, so that progress bars are drawn."""

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def aside() -> Iterator[str]:
    """Yield a folder for logs and checkpoints that goes again; draw what Lightning has to say, and show none of it."""
    screen = _Terminal()
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            named = mock.patch.dict(os.environ, TERM="xterm")  # on a dumb terminal nothing is drawn
            with named, redirect_stdout(screen), redirect_stderr(screen):
                yield folder
    finally:
        logging.disable(logging.NOTSET)


def hand_epoch(step: Step, net: nn.Module, data: ImageDataModule, device: torch.device) -> Callable[[], Iterator[None]]:
    """Return a loop over the training images in a new order, as one writes it without Lightning."""
    data.setup("fit")
    assert data.train_set is not None
    images, labels = data.train_set.images, data.train_set.labels
    net.train()
    optimizer = sgd(net)

    def epoch() -> Iterator[None]:
        for index in torch.randperm(len(images)).split(data.batch_size):
            x = images[index].to(device).float().div_(255)
            step(net, optimizer, x, labels[index].to(device))
            yield

    return epoch


def command_line(run: Run, folder: str, epochs: int, *words: str) -> AdversarialCLI:
    """Build what a user's command line builds, all that is on by default but the pictures."""
    args = [
        "--model.attack=FGSM",
        f"--model.attack.eps={EPS}",
        f"--model.alpha={ALPHA}",
        "--model.optimizer=torch.optim.SGD",
        "--model.optimizer.lr=0.1",
        "--model.optimizer.momentum=0.5",
        "--callbacks.pictures=null",
        f"--trainer.accelerator={'gpu' if run.device.type == 'cuda' else 'cpu'}",
        "--trainer.devices=1",
        f"--trainer.max_epochs={epochs}",
        f"--trainer.default_root_dir={folder}",
        *words,
    ]
    return AdversarialCLI(args=args, run=False)


def measure(run: Run) -> Section:
    """Time an epoch of the maxout net."""
    steps = 20 if run.quick else run.steps
    rounds = run.rounds_of(3)
    data = ["--data=benchmarks.epochs.RandomImages", f"--data.steps={steps}"]
    if run.data is not None:
        limit = f"--trainer.limit_train_batches={steps}"
        data = ["--data=MNISTDataModule", f"--data.root={run.data}", "--data.val_size=100", limit]
    with aside() as folder:
        cli = command_line(run, folder, rounds + 1, "--model.backbone=MaxoutMLP", *data)
        net = copy.deepcopy(cli.model.backbone).to(run.device)
        watch = Stopwatch(run, hand_epoch(hand, net, cli.datamodule, run.device))
        watch.fit(cli.trainer, cli.model, cli.datamodule)
    found = {"by hand": Spread.of(watch.hand), "Trainer": Spread.of(watch.epochs)}
    found["Trainer, steps alone"] = Spread.of(watch.steps)
    table = Table([f"maxout 240 x 5, {steps} steps of batch {BATCH}", "s an epoch", "over by hand"])
    table.rows += [[name, spread.show(), figure(spread.over(found["by hand"]))] for name, spread in found.items()]
    bar = Bar("epoch of maxout 240 x 5: Trainer / by hand", found["Trainer"].over(found["by hand"]), 1.10)
    return Section("An epoch", [table], [NOTE], [bar], found)


NOTE = """\
By hand: the mixed loss in two forward and two backward passes, batches gathered from the images by a permutation. \
Trainer: `python -m adv_lightning fit` with what is on by default, but for the pictures: TensorBoard, progress bar, \
best and last checkpoint. Its epoch runs from its start to the next one's, less the validation; the start-up of `fit` \
is not in it. Within one `fit` the two take turns of 20 steps."""
