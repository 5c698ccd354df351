"""Pictures of what the attack does, in TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from adv_lightning.module import AdversarialModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AdversarialPictures(Callback):
    """Shows validation images clean, their perturbation, and under attack, with predicted classes and confidences.

    Drawn under the module's `val_attack`, in eval mode, for the first images of the validation set. Without a
    TensorBoard logger or an attack it does nothing.

    Args:
        every_n_epochs: Epochs from one picture to the next, at least 1.
        samples: Number of images, at least 1.

    Raises:
        ValueError: a number is below 1.
    """

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
        logger = next((lg for lg in trainer.loggers if isinstance(lg, TensorBoardLogger)), None)
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 or trainer.current_epoch == 0
        if batch_idx or dataloader_idx or trainer.sanity_checking or not due or logger is None:
            return
        if not (isinstance(pl_module, AdversarialModule) and pl_module.val_attack and trainer.is_global_zero):
            return
        x, y = (part[: self.samples] for part in pl_module.unpack(batch))
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            return
        with trainer.precision_plugin.forward_context():
            x_adv = pl_module.val_attack(pl_module, x, y, loss_fn=pl_module.loss)
            guesses = [_guess(pl_module, inputs) for inputs in (x, x_adv)]
        names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
        figure = draw(x, x_adv, y, guesses[0], guesses[1], names)
        logger.experiment.add_figure("adversarial examples", figure, global_step=trainer.global_step)


def _guess(module: AdversarialModule, x: Tensor) -> list[tuple[int, float]]:
    logits = module(x)
    probabilities, predicted = module.loss_fn.probabilities(logits).float(), module.loss_fn.predict(logits)
    return list(zip(predicted.tolist(), probabilities.amax(dim=-1).tolist(), strict=True))


def draw(
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    clean: list[tuple[int, float]],
    attacked: list[tuple[int, float]],
    class_names: list[str] | None = None,
) -> Figure:
    """Draw a column an image: clean, the perturbation on a scale of its own with its largest value, under attack.

    A wrong prediction is red. The figure is wide, because TensorBoard shows it in cards of little height.

    Args:
        x: Clean images, [N, C, H, W], C = 1 or 3, shown on the scale [0, 1].
        x_adv: The same under attack.
        y: Their classes, int64 [N].
        clean: Predicted class and its probability of each clean image.
        attacked: The same under attack.
        class_names: A name for each class; by default its number.
    """
    from matplotlib.figure import Figure  # slow to import, and only this needs it

    figure = Figure(figsize=(0.5 + 1.25 * len(x), 6.0), layout="constrained")
    axes = figure.subplots(3, len(x), squeeze=False)
    name = (lambda k: str(k)) if class_names is None else (lambda k: class_names[k])
    noise = x_adv.float() - x.float()
    span = 2 * max(noise.abs().max().item(), 1e-12)
    for column in range(len(x)):
        label, change = int(y[column]), noise[column]
        (k, p), (k_adv, p_adv) = clean[column], attacked[column]
        panels = (
            (x[column], f"{name(k)}\n{p:.0%}", k == label),
            (change / span + 0.5, f"\u00b1{change.abs().max().item():.2g}", True),
            (x_adv[column], f"{name(k_adv)}\n{p_adv:.0%}", k_adv == label),
        )
        for axis, (image, title, right) in zip(axes[:, column], panels, strict=True):
            pixels = torch.clamp(image.detach().float().cpu(), 0, 1).permute(1, 2, 0).numpy()
            axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=16, color="black" if right else "firebrick")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[-1, column].set_xlabel(f"true\n{name(label)}", fontsize=16)
    for axis, text in zip(axes[:, 0], ("clean", "perturbation", "under attack"), strict=True):
        axis.set_ylabel(text, fontsize=16)
    return figure
