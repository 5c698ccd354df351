"""Base class of the data modules."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from adv_lightning.data.loader import BatchLoader
from adv_lightning.data.loader_warnings import LoaderWarnings
from adv_lightning.data.sampler import ShardedSampler
from adv_lightning.data.seeding import process_seed
from adv_lightning.data.shared_memory import once_a_node
from adv_lightning.data.split import in_proportion, split_indices
from adv_lightning.data.tensor_images import BatchTransform, TensorImages

Labelled = tuple[Tensor, Tensor]


class ImageDataModule(LightningDataModule):
    """Images in memory, split into training, validation and test sets.

    For your own data set, subclass it, set `input_shape` and `all_class_names`, and write `load`.

    Batches are (x, y): x float32 [B, C, H, W] in [0, 1], y int64 [B]. Training images are shuffled again each epoch;
    with several processes they are padded, see `ShardedSampler`. Validation and test images are in a fixed order, each
    exactly once over all processes: an order in which the first n have the classes in proportion, unless the files are
    `shuffled` already. Prediction reads the same images as test, in the order of the files.

    Args:
        batch_size: Images per batch and process.
        val_size: Number of training images kept for validation, counted before `classes` selects. 0: train on all
            images; there is no validation loader then.
        split: Which images are kept for validation. "last": the last ones. "random": drawn once with `split_seed`, with
            the classes in proportion.
        split_seed: Seed of the random split, 0 or more. It is independent of the training seed.
        classes: Keep only these classes, relabelled from 0 in the given order: [3, 7] makes 3 class 0 and 7 class 1.
        on_device: Keep the whole set on the trainer's device.
        test_part: What test and predict read: the "test" set, or the "train" or "val" images. The last two measure the
            training or validation error in eval mode, without augmentation.
        seed: Seed of the order and the augmentation, 0 or more. None: Lightning's global seed, or 0.

    Raises:
        ValueError: an argument is out of range.
    """

    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    all_class_names: tuple[str, ...]
    """Names of all classes of the data set, in the order of their labels."""
    shuffled: ClassVar[bool] = False
    """Whether the images of `load` are in an order that does not depend on their classes."""
    scale: ClassVar[float] = 255.0
    """The image value returned by `load` that stands for 1."""
    has_val: bool = False
    """Whether `load_train_val` reads validation images that are not taken from the training images."""
    train_transform: BatchTransform | None = None
    """Random change of training batches."""

    def __init__(
        self,
        batch_size: int = 100,
        val_size: int = 0,
        split: Literal["last", "random"] = "last",
        split_seed: int = 0,
        classes: list[int] | None = None,
        on_device: bool = False,
        test_part: Literal["test", "train", "val"] = "test",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_size", val_size, 0),
            ("split_seed", split_seed, 0),
            ("seed", seed, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}")
        if split not in ("last", "random"):
            raise ValueError(f"split must be 'last' or 'random', got {split!r}")
        if test_part not in ("test", "train", "val"):
            raise ValueError(f"test_part must be 'test', 'train' or 'val', got {test_part!r}")
        if test_part == "val" and val_size == 0 and not self.has_val:
            raise ValueError("test_part='val' needs validation images, but val_size=0 keeps none: set val_size")
        _check_classes(classes, len(self.all_class_names))
        self.batch_size = batch_size
        self.val_size = val_size
        self.split = split
        self.split_seed = split_seed
        self.classes = classes
        self.on_device = on_device
        self.test_part = test_part
        self.seed = seed
        self._warnings = LoaderWarnings()
        self.train_set: TensorImages | None = None
        self.val_set: TensorImages | None = None
        self.test_set: TensorImages | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the selected classes, in the order of their labels."""
        chosen = range(len(self.all_class_names)) if self.classes is None else self.classes
        return [self.all_class_names[label] for label in chosen]

    @property
    def num_classes(self) -> int:
        """Number of selected classes."""
        return len(self.class_names)

    def load(self, part: Literal["train", "test"]) -> Labelled:
        """Read all images of a part of the data set, with all classes. "train" includes the validation images.

        Returns:
            Images, uint8 or float32 [N, C, H, W] in [0, scale], and labels, int64 [N].

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged.
        """
        raise NotImplementedError(f"{type(self).__name__} must define load(part)")

    def load_train_val(self) -> tuple[Labelled, Labelled | None]:
        """Read the training set and the validation set (None: there is none).

        Raises:
            ValueError: `val_size` leaves nothing to train on.
        """
        images, labels = self.load("train")
        if self.val_size == 0:
            return (images, labels), None
        if self.val_size >= len(labels):
            raise ValueError(f"val_size={self.val_size} leaves nothing to train on: there are {len(labels)} images")
        train, val = split_indices(labels, self.val_size, self.split_seed if self.split == "random" else None)
        return (images[train], labels[train]), (images[val], labels[val])

    def setup(self, stage: str) -> None:
        """Read what `stage` (fit, validate, test or predict) needs: once, and once for all processes of a node."""
        self._warnings.silence(self.trainer)
        if stage in ("fit", "validate") and self.train_set is None:
            train, val = once_a_node(self._selected_train_val, self.trainer)
            self.train_set = self._make_set("training", train, self.train_transform)
            self._warn_of_missing_classes(self.train_set.labels)
            self.val_set = None if val is None else self._make_set("validation", val)
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = self._make_set("test", once_a_node(self._load_test, self.trainer))

    def teardown(self, stage: str) -> None:
        self._warnings.restore()

    def on_exception(self, exception: BaseException) -> None:
        self._warnings.restore()

    def _selected_train_val(self) -> tuple[Labelled, Labelled | None]:
        train, val = self.load_train_val()
        return self._select(train), None if val is None else self._select(val)

    def _load_test(self) -> Labelled:
        if self.test_part == "test":
            return self._select(self.load("test"))
        train, val = self._selected_train_val()
        kept = train if self.test_part == "train" else val
        assert kept is not None
        return kept

    def train_dataloader(self) -> BatchLoader:
        """Return a loader of the shuffled training set."""
        images = self.train_set = self._ready(self.train_set, "fit")
        sampler = ShardedSampler(images, shuffle=True, seed=(process_seed() or 0) if self.seed is None else self.seed)
        loader = BatchLoader(images, batch_size=self.batch_size, sampler=sampler, generator=images.generator)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return a loader of the validation set, or an empty list if there is none."""
        if self.train_set is not None and self.val_set is None:
            return []  # Lightning reads an empty list as no validation
        self.val_set = self._ready(self.val_set, "validate")
        return self._judged(self.val_set)

    def test_dataloader(self) -> BatchLoader:
        """Return a loader of the test set."""
        self.test_set = self._ready(self.test_set, "test")
        return self._judged(self.test_set)

    def predict_dataloader(self) -> BatchLoader:
        """Return a loader of the test set in the order of the files."""
        self.test_set = self._ready(self.test_set, "predict")
        return self._in_order(self.test_set)

    def _select(self, data: Labelled) -> Labelled:
        if self.classes is None:
            return data
        images, labels = data
        new_label = torch.full((len(self.all_class_names),), -1)
        new_label[self.classes] = torch.arange(len(self.classes))
        kept = new_label[labels] >= 0
        return images[kept], new_label[labels[kept]]

    def _make_set(self, name: str, data: Labelled, transform: BatchTransform | None = None) -> TensorImages:
        images, labels = data
        try:
            return TensorImages(images, labels, scale=self.scale, num_classes=self.num_classes, transform=transform)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{type(self).__name__}, {name} set: {error}") from error

    def _warn_of_missing_classes(self, labels: Tensor) -> None:
        missing = (torch.bincount(labels, minlength=self.num_classes) == 0).nonzero().flatten().tolist()
        if missing:
            names = ", ".join(self.class_names[label] for label in missing)
            rank_zero_warn(
                f"{type(self).__name__}, training set: no image of {names}: the network cannot learn a class "
                "without images. Use split: random for validation, which keeps the classes in proportion, or select "
                "other classes (classes)"
            )

    def _ready(self, images: TensorImages | None, stage: str) -> TensorImages:
        if images is None:
            raise RuntimeError(f"{type(self).__name__} has read nothing yet: call setup({stage!r}) first")
        if self.on_device and self.trainer is not None:
            return images.to(self.trainer.strategy.root_device)
        return images

    def _judged(self, images: TensorImages) -> BatchLoader:
        return self._in_order(images, None if self.shuffled else in_proportion(images.labels.cpu()))

    def _in_order(self, images: TensorImages, order: Tensor | None = None) -> BatchLoader:
        return BatchLoader(images, batch_size=self.batch_size, sampler=ShardedSampler(images, pad=False, order=order))


def _check_classes(classes: Sequence[int] | None, number: int) -> None:
    if classes is None:
        return
    if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= set(range(number)):
        raise ValueError(f"classes must be at least two different labels from 0 to {number - 1}, got {list(classes)}")
