"""Checkpoints written whole or not at all, and read as data alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from adv_lightning.methods.checkpoint_format import read_checkpoint


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, onto the disk, and only then gives it the name of the former one.

    However a process ends while it writes, there is the former file, whole, or the new one. Lightning's own writer
    moves the file from the temporary folder, which copies it where that lies on another disk. Files are read with
    torch's safe loading, and refused in plain words. Addresses such as s3://... go Lightning's way.

    A plugin: `Trainer(plugins=[WholeCheckpointIO()])`. The command line has it, unless it is given another.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: it cannot be written, as where the disk is full; the former file stays as it is.
        """
        if _is_address(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.opened(partial) as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                partial.unlink()
            # torch's writer says that it could not end its file, after the error that tells why.
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            former = "the former one is there, whole" if target.is_file() else "there is none from before"
            raise OSError(
                f"{target}: no checkpoint can be written there ({reason.strerror or reason}), and {former}: make room, "
                "and go on with --ckpt_path last"
            ) from None

    def opened(self, path: Path) -> BinaryIO:
        """Open the file that a checkpoint is written to before it gets its name."""
        return path.open("wb")

    def load_checkpoint(
        self, path: _PATH, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no checkpoint, was cut short, or holds more than data.
        """
        if _is_address(path) or weights_only is False:
            return super().load_checkpoint(path, map_location or _stay, weights_only)
        return read_checkpoint(path, mmap=False)


def _is_address(path: _PATH) -> bool:
    return "://" in str(path)


def _stay(storage: Any, location: str) -> Any:
    return storage
