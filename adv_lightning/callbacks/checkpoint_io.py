"""Checkpoints that are written completely or not at all, and read as data only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from adv_lightning.callbacks.stored_paths import is_inside
from adv_lightning.data.atomic_write import partial_file
from adv_lightning.methods.checkpoint_format import read_checkpoint


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint to `<path>.partial` first, and renames it once it is complete and on the disk.

    However a process ends while it writes, either the former file or the new one is there, complete. Lightning's own
    writer moves the file from the temporary folder; if that is on another disk, the move is a copy, which can be cut
    short. Checkpoints are read with torch's safe loading, and files that it refuses are reported in plain words.
    Addresses such as s3://... are left to Lightning.

    It removes only checkpoints, and only in a folder that it has written to. Lightning's callback takes the names of
    the files that it removes from the checkpoint that a run continues from, and so from whoever made that.

    The command line uses this plugin unless it is given another one.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(plugins=[WholeCheckpointIO()])
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: the file cannot be written, for example because the disk is full. The former file is kept.
        """
        self._folders().add(str(path).rpartition("/")[0] if _is_address(path) else str(Path(path).parent.resolve()))
        if _is_address(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            with self.opened(target) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch's writer raises a RuntimeError after the OSError that caused it.
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            former = "the former checkpoint is kept" if target.is_file() else "no earlier checkpoint exists"
            raise OSError(
                f"cannot write the checkpoint {target} ({reason.strerror or reason}); {former}. Free some disk space, "
                "then continue with --ckpt_path=last"
            ) from None

    def opened(self, path: Path) -> AbstractContextManager[BinaryIO]:
        """Open the file that becomes `path` once it is complete."""
        return partial_file(path)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a checkpoint, was cut short, or holds more than data.
        """
        if _is_address(path) or weights_only is False:
            return super().load_checkpoint(path, map_location or _keep_on_cpu, weights_only)
        return read_checkpoint(path, mmap=False)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint; leave anything else, with a warning."""
        written = any(is_inside(path, folder) for folder in self._folders())
        if _is_address(path):
            removable = written
        elif Path(path).is_dir():
            removable = _is_sharded(Path(path)) and ".." not in Path(path).parts  # written by the strategy
        else:
            removable = written and _is_checkpoint(path)
        if removable:
            super().remove_checkpoint(path)
        elif _is_address(path) or Path(path).exists():
            rank_zero_warn(f"{path} is not removed: it is not a checkpoint in a folder that this run writes to")

    def _folders(self) -> set[str]:
        """Return the folders that were written to; made here, as subclasses may have a constructor of their own."""
        found: set[str] = self.__dict__.setdefault("_written", set())
        return found


def _is_address(path: str | Path) -> bool:
    return "://" in str(path)


def _is_checkpoint(path: str | Path) -> bool:
    try:
        return bool(read_checkpoint(path))
    except (OSError, ValueError):
        return False


def _is_sharded(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a strategy that spreads parameters, and holds nothing else."""
    names = [each.name for each in folder.iterdir() if each.is_file() and not each.is_symlink()]
    if folder.is_symlink() or len(names) < len(list(folder.iterdir())) or ".metadata" not in names:
        return False
    return all(name in (".metadata", "meta.pt") or name.endswith(".distcp") for name in names)


def _keep_on_cpu(storage: Any, location: str) -> Any:
    return storage
