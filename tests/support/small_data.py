"""Small data sets in the real sets' formats, written where the configurations look for them."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image

SMALL = [
    *("--data.val_size=4", "--data.batch_size=4", "--callbacks.attack_suite.max_samples=4"),
    *("--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"),
]
"""Arguments for one quick step on these sets."""


def write_all(root: Path, monkeypatch: Any) -> None:
    """Write all sets of the shipped configurations."""
    write_idx(root / "data" / "MNIST" / "raw")
    write_idx(root / "data" / "FashionMNIST" / "raw", zipped=True)
    write_cifar(root / "data", monkeypatch)
    write_pictures(root / "pictures")


def write_idx(folder: Path, train: int = 60, test: int = 20, size: int = 28, zipped: bool = False) -> None:
    """Write the four files of MNIST's format, with noise for images and every class present."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, number in (("train", train), ("t10k", test)):
        images = rng.integers(256, size=(number, size, size), dtype=np.uint8)
        labels = (np.arange(number) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            magic = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
            content = magic + array.tobytes()
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def write_cifar(root: Path, monkeypatch: Any, per_file: int = 10) -> None:
    """Write CIFAR-10's pickle batches, and let torchvision expect their digests."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: Any) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name: str) -> list[str]:
        pixels = rng.integers(256, size=(per_file, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [i % 10 for i in range(per_file)]})

    source = torchvision.datasets.CIFAR10
    meta = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(source, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(source, "test_list", [batch("test_batch")])
    monkeypatch.setattr(source, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})


def write_pictures(root: Path, per_class: int = 4) -> None:
    """Write a folder of pictures, two classes, train and test."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                pixels = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
