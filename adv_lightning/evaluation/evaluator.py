"""The base class of evaluations: callbacks that judge the network and report a section."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from adv_lightning.callbacks import TimedProgressBar
from adv_lightning.callbacks._layer_names import adversarial
from adv_lightning.evaluation.report_section import Section
from adv_lightning.methods.evaluated_batch import unpacked
from adv_lightning.module import AdversarialModule

Stage = Literal["test", "val"]


class Evaluator(Callback):
    """Judges the network in the commands `test` and `validate`, and prints the results. Base class.

    A subclass defines `start`, `judge` and `finish`. It does not run in the validation inside `fit`.
    """

    changes_training = False
    section: Section | None = None
    """Results of the last evaluation."""
    stage: Stage = "test"
    """Stage of the last evaluation."""

    batch: Any
    """The batch that is judged."""

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        """Prepare for a new evaluation."""

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        """Judge a batch, x [B, ...] and y [B]; `outputs` is the return value of the module's step."""

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        """Return the results. Called on every process."""
        raise NotImplementedError(f"{type(self).__name__} must define finish(trainer, module)")

    def _start(self, stage: Stage, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stage, self.section = stage, None
        self.start(trainer, adversarial(pl_module, self))

    def _judge(self, trainer: Trainer, pl_module: LightningModule, batch: Any, outputs: Any) -> None:
        module = adversarial(pl_module, self)
        self.batch = batch
        x, y = unpacked(module, batch)
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


def class_names(trainer: Trainer) -> list[str] | None:
    """Return the names of the classes, if the data module knows them."""
    names: list[str] | None = getattr(getattr(trainer, "datamodule", None), "class_names", None)
    return names


def announce(trainer: Trainer, text: str | None) -> None:
    """Show in the progress bar what is running; None clears it."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, TimedProgressBar):
        bar.say(text)
