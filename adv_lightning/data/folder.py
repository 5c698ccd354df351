"""Pictures in folders, one a class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import find_classes
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from adv_lightning.data.augment import RandomCropFlip
from adv_lightning.data.base import ImageDataModule, Labelled

__all__ = ["ImageFolderDataModule"]


class ImageFolderDataModule(ImageDataModule):
    """Your own pictures: ``root/train/<class>/*`` and ``root/test/<class>/*``, and ``root/val`` if you like.

    The classes are the folders of ``root/train``, in the order of their names. Every picture is read once,
    scaled so that its shorter side is ``image_size`` and cropped about its centre; the whole set then lies in
    memory, at 3 * image_size * image_size bytes a picture. The test folder may be missing while nothing
    is tested.

    Args:
        root: Folder with ``train``, ``test`` and ``val``.
        image_size: Height and width in pixels.
        val_size: Number of training images kept for validation. It must be 0 where there is a folder ``val``,
            which then is the validation set.
        split: ``random``: drawn once with ``split_seed``, with the classes in proportion. ``last``: the last
            ones, which are of the last classes.
        augment: Shift training images by up to an eighth of their size and mirror half of them.
        **kwargs: See `ImageDataModule`.

    Raises:
        FileNotFoundError: There is no folder ``root/train``, or it has no folders in it.
        ValueError: An argument is out of range, or a folder names a class that ``root/train`` lacks,
            or a file is no picture.
    """

    def __init__(
        self,
        root: str = "data",
        image_size: int = 32,
        val_size: int = 0,
        split: Literal["last", "random"] = "random",
        augment: bool = False,
        **kwargs: Any,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be 1 or more, got {image_size}")
        self.root = root
        self.image_size = image_size
        self.input_shape = (3, image_size, image_size)
        self.all_class_names = tuple(self._classes("train"))
        super().__init__(val_size=val_size, split=split, **kwargs)
        self._has_val = Path(root, "val").is_dir()
        if self._has_val and val_size > 0:
            raise ValueError(
                f"val_size={val_size} would split pictures off for validation, but there is a folder "
                f"{Path(root, 'val')}: leave val_size at 0, or move the folder away"
            )
        self.train_transform = RandomCropFlip(padding=image_size // 8) if augment else None

    def load(self, part: Literal["train", "val", "test"]) -> Labelled:
        names = self._classes(part)
        unknown = sorted(set(names) - set(self.all_class_names))
        if unknown:
            raise ValueError(
                f"{Path(self.root, part)} has folders that {Path(self.root, 'train')} lacks: "
                f"{', '.join(unknown)}. The folders in train are the classes"
            )
        size = self.image_size
        pictures = ImageFolder(
            str(Path(self.root, part)),
            transform=Compose([Resize(size), CenterCrop(size), PILToTensor()]),
            allow_empty=True,
        )
        rank_zero_info(f"Reading {len(pictures)} pictures from {pictures.root}")
        images = torch.empty(len(pictures), *self.input_shape, dtype=torch.uint8)

        def read(index: int) -> None:
            try:
                images[index] = pictures[index][0]
            except OSError as error:
                raise ValueError(f"cannot read {pictures.imgs[index][0]} as a picture: {error}") from error

        with ThreadPoolExecutor() as pool:  # PIL decodes outside of Python's lock
            list(pool.map(read, range(len(pictures))))
        # A part may lack a class, so that its own numbering of the folders need not be that of train.
        new_label = torch.tensor([self.all_class_names.index(name) for name in names])
        return images, new_label[torch.tensor(pictures.targets, dtype=torch.int64)]

    def load_train_val(self) -> tuple[Labelled, Labelled | None]:
        return (self.load("train"), self.load("val")) if self._has_val else super().load_train_val()

    def _classes(self, part: str) -> list[str]:
        folder = Path(self.root, part)
        try:
            names: list[str] = find_classes(folder)[0]
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no pictures in {folder.absolute()}: it must hold one folder of pictures for each class. "
                "Set root to the folder that holds train and test"
            ) from error
        return names
