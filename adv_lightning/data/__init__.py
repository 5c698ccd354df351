"""Data modules that read whole batches of images from memory."""

from adv_lightning.data.augment import RandomCropFlip
from adv_lightning.data.base import ImageDataModule
from adv_lightning.data.cifar import CIFAR10DataModule
from adv_lightning.data.digits import DigitsDataModule
from adv_lightning.data.folder import ImageFolderDataModule
from adv_lightning.data.loader import BatchLoader
from adv_lightning.data.mnist import FashionMNISTDataModule, MNISTDataModule
from adv_lightning.data.sampler import ShardedSampler
from adv_lightning.data.tensor_images import BatchTransform, TensorImages

__all__ = [
    "BatchLoader",
    "BatchTransform",
    "CIFAR10DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "RandomCropFlip",
    "ShardedSampler",
    "TensorImages",
]
