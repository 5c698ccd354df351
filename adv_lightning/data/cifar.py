"""CIFAR-10."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from adv_lightning.data.augment import RandomCropFlip
from adv_lightning.data.base import ImageDataModule
from adv_lightning.data.download import downloading


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 (Krizhevsky, 2009): 32x32 colour pictures, 50,000 for training and 10,000 for test.

    The files of the "python version" are unpacked in `root/cifar-10-batches-py`. For pictures in folders use
    `ImageFolderDataModule`.

    Args:
        root: Folder of the data.
        download: Download the files if they are missing.
        val_size: Number of training images kept for validation. By default the last 5,000.
        augment: Shift training images by up to 4 pixels, and mirror half of them.
        **kwargs: See `ImageDataModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    shuffled = True
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

    @property
    def source(self) -> Any:
        """torchvision's reader, which checks the files' digests before unpickling them. Subclasses may override it."""
        # Late: torchvision takes a second to import, and other data do not need it.
        from torchvision.datasets import CIFAR10

        return CIFAR10

    def prepare_data(self) -> None:
        """Find the files, or download them."""
        if self.download:
            with downloading("CIFAR-10", self.root):
                self.source(self.root, download=True)
        elif not self._folder.is_dir():
            raise FileNotFoundError(self._missing("it does not exist"))

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
            f"CIFAR-10: cannot read {self._folder.absolute()}: {what}. It must hold the files data_batch_1 to 5, "
            f"test_batch and batches.meta. Set root to the folder that holds {self.source.base_folder}, or "
            "download: true"
        )
