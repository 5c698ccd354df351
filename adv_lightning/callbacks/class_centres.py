"""Centres of an RBF network from the data."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from adv_lightning.callbacks._layer_names import adversarial
from adv_lightning.data import TensorImages
from adv_lightning.models import ShallowRBF, class_means


class ClassCentres(Callback):
    """Sets the centres of a `ShallowRBF` to the mean training image of each class before training starts.

    Each call of `fit` does this again. When a run resumes, its checkpoint is read afterwards and overwrites the
    centres. The means are taken over the images without augmentation, in [0, 1].

    Raises:
        TypeError: the backbone is not a ShallowRBF, the data module does not keep its training images in memory
            (`train_set`), or the module is not an AdversarialModule.
        ValueError: the images have another shape or more classes than the backbone, or a class has no image.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ClassCentres()])
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        backbone = adversarial(pl_module, self).backbone
        if not isinstance(backbone, ShallowRBF):
            raise TypeError(
                f"ClassCentres sets the centres of a ShallowRBF, but the backbone is a {type(backbone).__name__}: "
                "change the backbone, or remove ClassCentres"
            )
        images = getattr(getattr(trainer, "datamodule", None), "train_set", None)
        if not isinstance(images, TensorImages):
            raise TypeError(
                "ClassCentres needs a data module whose train_set is one of this package's TensorImages, got "
                f"{type(images).__name__}: remove ClassCentres and call backbone.set_centres(class_means(x, y, K))"
            )
        classes = backbone.mu.shape[0]
        if images.labels.max() >= classes:
            raise ValueError(
                f"ClassCentres: the training images have a label {images.labels.max().item()}, but the backbone has "
                f"{classes} classes: give it one for each class of the data"
            )
        means = class_means(images.images.float() / images.scale, images.labels, classes)
        backbone.set_centres(means.to(backbone.mu.device))
