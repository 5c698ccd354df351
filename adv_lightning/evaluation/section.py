"""What every evaluation is: a callback that judges the network, and a section that says what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table as RichTable
from torch import Tensor

from adv_lightning.callbacks import TimedProgressBar
from adv_lightning.callbacks._checks import adversarial
from adv_lightning.module import AdversarialModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Stage = Literal["test", "val"]


@dataclass(frozen=True)
class Table:
    """Cells of text under named columns; the first column names its row."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    of_words: bool = False
    """Whether the cells are sentences rather than figures."""


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn only where somebody will see it."""

    name: str
    """Name of its file, without a suffix, and in TensorBoard."""
    caption: str
    draw: Callable[[], Figure]


@dataclass
class Section:
    """What an evaluation found."""

    title: str
    text: str = ""
    """What was done: on how much, with which sizes."""
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences that stand below the tables."""
    pictures: list[Picture] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows for the record's list of judged figures."""
    record: dict[str, Any] = field(default_factory=dict)
    """Further keys of the record."""
    verdict: str | None = None
    """What stands at the head of the report."""

    def show(self) -> None:
        """Print the tables and the notes."""
        console = Console()
        for table in self.tables:
            shown = RichTable(title=table.title)
            for i, column in enumerate(table.columns):
                left = not i or table.of_words
                shown.add_column(column, justify="left" if left else "right", overflow="fold")
            for row in table.rows:
                shown.add_row(*row)
            console.print(shown)
        for note in self.notes:
            print(note)


class Evaluator(Callback):
    """Judges the network in the commands `test` and `validate`, and prints what it found. Base class.

    A subclass defines `start`, `judge` and `finish`; the validation inside `fit` is not its business.
    """

    section: Section | None = None
    """What the last evaluation found."""
    stage: Stage = "test"
    """Which it was."""

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        """Prepare for a new evaluation."""

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        """Judge a batch, x [B, ...] and y [B]; `outputs` is what the module's step returned."""

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        """Return what was found; every process takes part."""
        raise NotImplementedError(f"{type(self).__name__} must define finish(trainer, module)")

    def _start(self, stage: Stage, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stage, self.section = stage, None
        self.start(trainer, adversarial(pl_module, self))

    def _judge(self, trainer: Trainer, pl_module: LightningModule, batch: Any, outputs: Any) -> None:
        module = adversarial(pl_module, self)
        x, y = module.unpack(batch)
        with trainer.precision_plugin.forward_context():
            self.judge(trainer, module, x, y, outputs)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with trainer.precision_plugin.forward_context():
            self.section = self.finish(trainer, adversarial(pl_module, self))

    def _show(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.section is not None:
            self.section.show()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test", trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._judge(trainer, pl_module, batch, outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start("val", trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._judge(trainer, pl_module, batch, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._finish(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._show(trainer)


def announce(trainer: Trainer, text: str | None) -> None:
    """Show in the progress bar what is being done; None: nothing in particular."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, TimedProgressBar):
        bar.say(text)


def percent(value: float | None) -> str:
    """Write a share in [0, 1] in percent, without the sign; nothing for None."""
    return "" if value is None else f"{100 * value:.1f}"


def rate_with_interval(rate: float, interval: tuple[float, float] | list[float]) -> str:
    """Write a share with its interval in percent, without the sign."""
    return f"{100 * rate:.2f} [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
