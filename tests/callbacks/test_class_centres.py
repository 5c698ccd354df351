from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from adv_lightning import FGSM, AdversarialModule, ClassCentres, RBFLoss
from adv_lightning.data import BatchLoader, DigitsDataModule, TensorImages
from adv_lightning.models import ShallowRBF
from tests.support.helpers import batches, quiet_trainer
from tests.support.interrupted import At

SGD = partial(torch.optim.SGD, lr=0.1)


class Centres(Callback):
    """Keeps the centres before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found = pl_module.backbone.mu.detach().clone()


def rbf(num_classes: int = 10, shape: tuple[int, int, int] = (1, 8, 8)) -> AdversarialModule:
    return AdversarialModule(ShallowRBF(num_classes, shape), FGSM(0.1), loss_fn=RBFLoss(), optimizer=SGD)


def trainer(*callbacks: Callback, epochs: int = 1) -> Trainer:
    return quiet_trainer(
        max_epochs=epochs, limit_train_batches=2, limit_val_batches=1, callbacks=[ClassCentres(), *callbacks]
    )


def means(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([images[labels == k].mean(axis=0).ravel() for k in range(10)])


def test_centres_start_at_the_class_means() -> None:
    module, data, centres = rbf(), DigitsDataModule(batch_size=50), Centres()
    trainer(centres).fit(module, datamodule=data)
    images = data.train_set.images.double().numpy() / data.train_set.scale
    expected = means(images, data.train_set.labels.numpy())
    assert len(images) < 1797  # without those of validation and test
    assert 0.5 < expected.max() <= 1
    np.testing.assert_allclose(centres.found.numpy(), expected, rtol=0, atol=1e-6)
    assert not np.allclose(module.backbone.mu.detach().numpy(), expected, rtol=0, atol=1e-6)  # trained since


def test_resumed_checkpoint_wins(tmp_path: Path) -> None:
    module, data = rbf(), DigitsDataModule(batch_size=50)
    trainer(At(2, lambda run: run.save_checkpoint(tmp_path / "one.ckpt"))).fit(module, datamodule=data)
    centres = Centres()
    trainer(centres, epochs=2).fit(rbf(), datamodule=data, ckpt_path=tmp_path / "one.ckpt")
    assert torch.equal(centres.found, module.backbone.mu)


def test_validation_changes_nothing() -> None:
    module = rbf()
    trainer().validate(module, datamodule=DigitsDataModule(), verbose=False)
    assert module.backbone.mu.abs().max() == 0


def test_refuses_another_backbone() -> None:
    module = AdversarialModule(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), FGSM(0.1), optimizer=SGD)
    with pytest.raises(TypeError, match=r"ShallowRBF.*backbone is a Sequential"):
        trainer().fit(module, datamodule=DigitsDataModule())


def test_refuses_data_without_images_in_memory() -> None:
    loader = [(x.float().view(8, 1, 2, 3), y) for x, y in batches(1)]
    with pytest.raises(TypeError, match=r"train_set.*NoneType.*set_centres\(class_means"):
        trainer().fit(rbf(3, (1, 2, 3)), loader, loader)


class Few(DigitsDataModule):
    """Digits without the classes 7 to 9."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        kept = self.train_set.labels < 7
        self.train_set = TensorImages(
            self.train_set.images[kept], self.train_set.labels[kept], scale=self.train_set.scale
        )

    def train_dataloader(self) -> Any:
        return BatchLoader(self.train_set, batch_size=50)


@pytest.mark.parametrize(
    ("module", "data", "expected"),
    [
        (rbf(2), DigitsDataModule(), r"label 9.*2 classes"),
        (rbf(10, (1, 5, 5)), DigitsDataModule(), r"10 centres of 25 pixels.*\[10, 1, 8, 8\]"),
        (rbf(), Few(), r"\[7, 8, 9\] .*no image"),
    ],
)
def test_refuses_data_that_do_not_fit(module: AdversarialModule, data: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        trainer().fit(module, datamodule=data)
