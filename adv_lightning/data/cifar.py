"""CIFAR-10."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torchvision
from torch import Tensor

from adv_lightning.data.augment import RandomCropFlip
from adv_lightning.data.base import ImageDataModule
from adv_lightning.data.download import downloading

__all__ = ["CIFAR10DataModule"]


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 (Krizhevsky, 2009): 32x32 colour pictures, 50,000 for training and 10,000 for test.

    The "python version", unpacked in ``root/cifar-10-batches-py``. Pictures in folders are for
    `ImageFolderDataModule`.

    Args:
        root: Folder of the data.
        download: Fetch the files where they are missing.
        val_size: Number of training images kept for validation. By default the last 5,000.
        augment: Shift training images by up to 4 pixels and mirror half of them.
        **kwargs: See `ImageDataModule`.

    Raises:
        ValueError: An argument is out of range.
    """

    input_shape = (3, 32, 32)
    all_class_names = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    source: ClassVar[Any] = torchvision.datasets.CIFAR10
    """torchvision's reader, which checks the files' digests before it unpickles them."""

    def __init__(
        self,
        root: str = "data",
        download: bool = False,
        val_size: int = 5_000,
        augment: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_size=val_size, **kwargs)
        self.root = root
        self.download = download
        self.train_transform = RandomCropFlip() if augment else None

    def prepare_data(self) -> None:
        """Find the files, or download them."""
        if self.download:
            with downloading("CIFAR-10", self.root):
                self.source(self.root, download=True)
        elif not self._folder.is_dir():
            raise FileNotFoundError(self._missing("no such folder"))

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        try:
            data = self.source(self.root, train=part == "train")
        except RuntimeError as error:
            raise FileNotFoundError(self._missing("a file in it is missing or damaged")) from error
        return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)

    @property
    def _folder(self) -> Path:
        return Path(self.root, self.source.base_folder)

    def _missing(self, what: str) -> str:
        return (
            f"CIFAR-10: the files data_batch_1 to 5, test_batch and batches.meta belong in "
            f"{self._folder.absolute()}: {what}. Set root to the folder that holds "
            f"{self.source.base_folder}, or download: true"
        )
