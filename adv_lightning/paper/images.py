"""The test images for the network of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from adv_lightning.data import MNISTDataModule
from adv_lightning.methods.checkpoint_format import DATA, described, read_checkpoint


def test_images(checkpoint: Path, root: Path) -> tuple[Tensor, Tensor]:
    """Return MNIST's test images, float32 [N, 1, 28, 28] in [0, 1], and labels, int64 [N], of the trained classes.

    Args:
        checkpoint: A checkpoint that the command line made.
        root: Folder of MNIST.

    Raises:
        FileNotFoundError: a file is missing.
    """
    data = described(read_checkpoint(checkpoint), DATA)
    module = MNISTDataModule(**(data["init_args"] if data else {}) | {"root": str(root)})
    module.prepare_data()
    module.setup("test")
    assert module.test_set is not None  # setup has made it
    return module.test_set.__getitems__(range(len(module.test_set)))
