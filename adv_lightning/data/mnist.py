"""MNIST and Fashion-MNIST."""

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from adv_lightning.data.base import ImageDataModule
from adv_lightning.data.download import downloading
from adv_lightning.data.idx import read_idx

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class MNISTDataModule(ImageDataModule):
    """MNIST (LeCun et al., 1998): 28x28 grey handwritten digits, 60,000 for training and 10,000 for test.

    The four IDX files, plain or gzipped, are in `root/MNIST/raw` (torchvision's folder) or in `root`.

    Args:
        root: Folder of the data.
        download: Download the files if they are missing.
        val_size: Number of training images kept for validation. By default the last 10,000, which leaves 50,000 to
            train on.
        **kwargs: See `ImageDataModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    shuffled = True
    input_shape = (1, 28, 28)
    all_class_names = tuple("0123456789")

    def __init__(self, root: str = "data", download: bool = False, val_size: int = 10_000, **kwargs: Any) -> None:
        super().__init__(val_size=val_size, **kwargs)
        self.root = root
        self.download = download

    @property
    def source(self) -> Any:
        """torchvision's class of the data set, which knows its folder and its download. Subclasses may override it."""
        # Late: torchvision takes a second to import, and other data do not need it.
        from torchvision.datasets import MNIST

        return MNIST

    def prepare_data(self) -> None:
        """Find the files, or download them."""
        try:
            for part in _FILES:
                self._find(part)
        except FileNotFoundError:
            if not self.download:
                raise
            with downloading(self.source.__name__, self.root):
                self.source(self.root, download=True)

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        images_file, labels_file = self._find(part)
        images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
        return images.unsqueeze(1), labels.long()

    def _find(self, part: str) -> list[Path]:
        folders = [Path(self.root, self.source.__name__, "raw"), Path(self.root)]
        found = []
        for name in _FILES[part]:
            candidates = [folder / (name + suffix) for folder in folders for suffix in ("", ".gz")]
            file = next((path for path in candidates if path.is_file()), None)
            if file is None:
                raise FileNotFoundError(
                    f"{self.source.__name__}: no file {name} or {name}.gz in {folders[0].absolute()} or in "
                    f"{folders[1].absolute()}. Set root to the folder that has them, or download: true"
                )
            found.append(file)
        return found


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST (Xiao et al., 2017): 28x28 grey pictures of clothes, with the sizes and files of MNIST.

    The files are in `root/FashionMNIST/raw` or in `root`.
    """

    all_class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    @property
    def source(self) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST
