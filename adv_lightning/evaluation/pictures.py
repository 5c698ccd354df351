"""Pictures of adversarial examples in TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.callbacks.run_folder import show_png, takes_pictures
from adv_lightning.evaluation.evaluator import class_names
from adv_lightning.evaluation.plots import triptych
from adv_lightning.evaluation.report_section import png_of
from adv_lightning.losses import predicted_classes
from adv_lightning.methods.evaluated_batch import unpacked
from adv_lightning.module import AdversarialModule


class AdversarialPictures(Callback):
    """Shows validation images clean, their perturbation, and under attack, with predicted classes and confidences.

    Drawn under the module's `val_attack`, in eval mode, for the first images of the validation set, in the first epoch,
    then every few epochs, and in the last one that `max_epochs` or `max_steps` allows. It does nothing without a logger
    or an attack. A logger that takes no pictures, such as CSVLogger, is passed over.

    Args:
        every_n_epochs: Number of epochs from one picture to the next, at least 1.
        samples: Number of images, at least 1.

    Raises:
        ValueError: a number is below 1.
    """

    changes_training = False

    def __init__(self, every_n_epochs: int = 5, samples: int = 6) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("samples", samples)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: give at least 1")
        self.every_n_epochs = every_n_epochs
        self.samples = samples

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        epochs = trainer.current_epoch + 1
        last = epochs == trainer.max_epochs or trainer.global_step == trainer.max_steps
        due = epochs % self.every_n_epochs == 0 or epochs == 1 or last
        if batch_idx or dataloader_idx or trainer.sanity_checking or not due:
            return
        if not any(map(takes_pictures, trainer.loggers)):
            return
        if not (isinstance(pl_module, AdversarialModule) and pl_module.val_attack and trainer.is_global_zero):
            return
        x, y = unpacked(pl_module, batch, slice(self.samples))
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            return
        with trainer.precision_plugin.forward_context():
            x_adv = pl_module.val_attack(pl_module, x, y, loss_fn=pl_module.loss)
            guesses = [guess(pl_module, inputs) for inputs in (x, x_adv)]
        figure = triptych(x, x_adv, y, guesses[0], guesses[1], class_names(trainer))
        for logger in trainer.loggers:
            show_png(logger, "adversarial examples", png_of(figure), trainer.global_step)


def guess(module: AdversarialModule, x: Tensor) -> list[tuple[int, float]]:
    """Return the predicted class of each input and its probability."""
    logits = module(private_copy(module, x))
    probabilities, predicted = module.loss_fn.probabilities(logits).float(), predicted_classes(module.loss_fn, logits)
    return list(zip(predicted.tolist(), probabilities.amax(dim=-1).tolist(), strict=True))
