"""The digits that come with scikit-learn."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from adv_lightning.data.base import ImageDataModule
from adv_lightning.data.split import split_indices


class DigitsDataModule(ImageDataModule):
    """The 1,797 handwritten 8x8 digits that come with scikit-learn (Alpaydin and Kaynak, 1998): no download.

    A fixed random 360 of them, with the classes in proportion, are the test set.

    Args:
        val_size: Number of training images kept for validation, out of the other 1,437. The default, 237, leaves
            1,200.
        split: Which of these are kept. "last": the last ones. "random": drawn once with `split_seed`, with the classes
            in proportion.
        **kwargs: See `ImageDataModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    shuffled = True
    input_shape = (1, 8, 8)
    all_class_names = tuple("0123456789")
    scale = 16.0
    test_size: ClassVar[int] = 360

    def __init__(self, val_size: int = 237, split: Literal["last", "random"] = "random", **kwargs: Any) -> None:
        super().__init__(val_size=val_size, split=split, **kwargs)

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # late: other data do not need scikit-learn

        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).long()
        # The same test set for every split_seed, so that results stay comparable.
        train, test = split_indices(labels, self.test_size, seed=0)
        chosen = train if part == "train" else test
        return images[chosen], labels[chosen]
