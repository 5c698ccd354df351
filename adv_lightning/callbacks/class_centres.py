"""Centres of an RBF network from the data."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from adv_lightning.callbacks._module import adversarial
from adv_lightning.data import TensorImages
from adv_lightning.models import ShallowRBF, class_means


class ClassCentres(Callback):
    """Moves the units of a `ShallowRBF` to the mean training image of their classes before training starts.

    Each call of `fit` does so anew, but for one that resumes from a checkpoint: that is read later, and wins. The
    means are of the images without augmentation, in [0, 1].

    Raises:
        TypeError: the backbone is no ShallowRBF, the data module has no training images in memory (`train_set`), or
            the module is no AdversarialModule.
        ValueError: the images have another shape or more classes than the backbone, or a class has no image.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        backbone = adversarial(pl_module, self).backbone
        if not isinstance(backbone, ShallowRBF):
            raise TypeError(
                f"ClassCentres moves the units of a ShallowRBF; the backbone is a {type(backbone).__name__}"
            )
        images = getattr(getattr(trainer, "datamodule", None), "train_set", None)
        if not isinstance(images, TensorImages):
            raise TypeError(
                "ClassCentres takes the means of the data module's train_set, one of this package's TensorImages, and "
                f"got {type(images).__name__}: give the centres yourself, backbone.set_centres(class_means(x, y, K))"
            )
        classes = backbone.mu.shape[0]
        if images.labels.max() >= classes:
            raise ValueError(
                f"ClassCentres: the training images have a label {images.labels.max().item()}, and the backbone "
                f"{classes} classes: give it one for each class of the data"
            )
        means = class_means(images.images.float() / images.scale, images.labels, classes)
        backbone.set_centres(means.to(backbone.mu.device))
