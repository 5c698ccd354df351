"""Pictures in folders, one folder per class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info

from adv_lightning.data.augment import RandomCropFlip
from adv_lightning.data.base import ImageDataModule, Labelled


class ImageFolderDataModule(ImageDataModule):
    """Your own pictures: `root/train/<class>/*`, `root/test/<class>/*` and, optionally, `root/val/<class>/*`.

    The classes are the folders in `root/train`, sorted by name. Every picture is read once, resized so that its shorter
    side is `image_size`, and cropped around its centre. The whole set is kept in memory, with
    3 * image_size * image_size bytes per picture. The test folder may be missing as long as nothing is tested.

    Args:
        root: Folder with `train`, `test` and `val`.
        image_size: Height and width in pixels, at least 1.
        val_size: Number of training images kept for validation. It must be 0 if there is a folder `val`, which is the
            validation set then.
        split: Which images are kept for validation. "random": drawn once with `split_seed`, with the classes in
            proportion. "last": the last ones, which belong to the last classes.
        augment: Shift training images by up to an eighth of their size, and mirror half of them.
        **kwargs: See `ImageDataModule`.

    Raises:
        FileNotFoundError: there is no folder `root/train`, or it contains no folders.
        ValueError: an argument is out of range; when reading, a folder names a class that `root/train` does not have,
            or a file is not a picture.
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
                f"val_size={val_size}, but the folder {Path(root, 'val')} is already the validation set: set val_size "
                "to 0, or remove the folder"
            )
        self.train_transform = RandomCropFlip(padding=image_size // 8) if augment else None

    def load(self, part: Literal["train", "val", "test"]) -> Labelled:
        # Late: torchvision takes a second to import, and other data do not need it.
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

        names = self._classes(part)
        unknown = sorted(set(names) - set(self.all_class_names))
        if unknown:
            raise ValueError(
                f"{Path(self.root, part)} has folders that {Path(self.root, 'train')} does not have: "
                f"{', '.join(unknown)}. The folders in train are the classes: add these there, or remove them"
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

        with ThreadPoolExecutor() as pool:  # PIL decodes without holding Python's lock
            list(pool.map(read, range(len(pictures))))
        # If a class is missing in this part, its folders are numbered differently from those in train.
        new_label = torch.tensor([self.all_class_names.index(name) for name in names])
        return images, new_label[torch.tensor(pictures.targets, dtype=torch.int64)]

    def load_train_val(self) -> tuple[Labelled, Labelled | None]:
        return (self.load("train"), self.load("val")) if self._has_val else super().load_train_val()

    def _classes(self, part: str) -> list[str]:
        from torchvision.datasets.folder import find_classes

        folder = Path(self.root, part)
        try:
            names: list[str] = find_classes(folder)[0]
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no pictures in {folder.absolute()}: it must contain one folder of pictures per class. "
                "Set root to the folder that contains train and test"
            ) from error
        return names
