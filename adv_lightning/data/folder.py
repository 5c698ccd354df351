"""Pictures in folders, one folder per class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from adv_lightning.data.augment import RandomCropFlip
from adv_lightning.data.base import ImageDataModule, Labelled

_LARGEST = 2**26
"""Pixels that a picture may have after it was resized, before it is cropped."""


class ImageFolderDataModule(ImageDataModule):
    """Your own pictures: `root/train/<class>/*`, `root/test/<class>/*` and, optionally, `root/val/<class>/*`.

    The classes are the folders in `root/train`, sorted by name. Every picture is read once, resized so that its shorter
    side is `image_size`, and cropped around its centre. The whole set is kept in memory, with
    3 * image_size * image_size bytes per picture. The test folder may be missing as long as nothing is tested.

    A picture is known by its content, whatever its name ends with: AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or
    WebP. It is turned upright as its EXIF data say, scaled to 8 bits a channel, and laid on white where it is
    transparent. Of several frames the first is read. Files that are no pictures are left out, and counted in a warning.
    Hidden files and folders, whose names begin with a dot, are passed over.

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
            or a file is damaged, or has pixels whose range is not known.
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
        self.has_val = Path(root, "val").is_dir()
        super().__init__(val_size=val_size, split=split, **kwargs)
        if self.has_val and val_size > 0:
            raise ValueError(
                f"val_size={val_size}, but the folder {Path(root, 'val')} is already the validation set: set val_size "
                "to 0, or remove the folder"
            )
        self.train_transform = RandomCropFlip(padding=image_size // 8) if augment else None

    def load(self, part: Literal["train", "val", "test"]) -> Labelled:
        # Late: torchvision takes a second to import, and other data need neither it nor Pillow.
        from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

        from adv_lightning.data.pictures import NotAPictureError, find_files, read_picture

        names = self._classes(part)
        unknown = sorted(set(names) - set(self.all_class_names))
        if unknown:
            raise ValueError(
                f"{Path(self.root, part)} has folders that {Path(self.root, 'train')} does not have: "
                f"{', '.join(unknown)}. The folders in train are the classes: add these there, or remove them"
            )
        size, folder = self.image_size, Path(self.root, part)
        files, labels, repeated = find_files([folder / name for name in names])
        transform = Compose([Resize(size), CenterCrop(size), PILToTensor()])
        rank_zero_info(f"Reading the pictures in {folder}")
        images = torch.empty(len(files), *self.input_shape, dtype=torch.uint8)

        def read(index: int) -> bool:
            try:
                images[index] = read_picture(files[index], transform, largest=max(1, _LARGEST // size**2))
            except NotAPictureError:
                return False
            return True

        with ThreadPoolExecutor() as pool:  # PIL decodes without holding Python's lock
            kept = list(pool.map(read, range(len(files))))
        left_out = [file for file, is_picture in zip(files, kept, strict=True) if not is_picture]
        loose = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        _warn(folder, loose, "files beside the folders of classes")
        _warn(folder, left_out, "files that are not pictures")
        _warn(folder, repeated, "links to folders that are read already")
        if left_out:
            images = images[torch.tensor(kept)]
            labels = [label for label, is_picture in zip(labels, kept, strict=True) if is_picture]
        # If a class is missing in this part, its folders are numbered differently from those in train.
        new_label = torch.tensor([self.all_class_names.index(name) for name in names])
        return images, new_label[torch.tensor(labels, dtype=torch.int64)]

    def load_train_val(self) -> tuple[Labelled, Labelled | None]:
        return (self.load("train"), self.load("val")) if self.has_val else super().load_train_val()

    def _classes(self, part: str) -> list[str]:
        folder = Path(self.root, part)
        inside = folder.iterdir() if folder.is_dir() else ()
        names = sorted(entry.name for entry in inside if entry.is_dir() and not entry.name.startswith("."))
        if not names:
            raise FileNotFoundError(
                f"no pictures in {folder.absolute()}: it must contain one folder of pictures per class. "
                "Set root to the folder that contains train and test"
            )
        return names


def _warn(folder: Path, left_out: list[Path], what: str) -> None:
    if left_out:
        rank_zero_warn(f"{folder}: {what}: {len(left_out)} left out, first {left_out[0].relative_to(folder)}")
