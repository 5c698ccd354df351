"""Checkpoints read safely, and the modules in them."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from adv_lightning.module import AdversarialModule

MODEL = AdversarialModule.CHECKPOINT_HYPER_PARAMS_KEY
DATA = "datamodule_hyper_parameters"


def read_checkpoint(path: str | Path, *, mmap: bool = True) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU, with torch's safe loading.

    Args:
        path: A file on this machine.
        mmap: Leave tensors in the file until they are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, was cut short, or holds more than data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: this is no checkpoint, or one that was cut short")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"{path}: it cannot be read as a checkpoint, safely: {type(error).__name__}: {reason}"
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path}: this is no checkpoint of a Lightning run: it holds no state_dict")
    return checkpoint


def described(checkpoint: dict[str, Any], key: str = MODEL) -> dict[str, Any] | None:
    """Return hyper-parameters of a checkpoint as `{class_path, init_args}` if a command line stored them, else None.

    Args:
        checkpoint: What `read_checkpoint` gives.
        key: `MODEL` for those of the module, `DATA` for those of the data module.
    """
    stored = checkpoint.get(key, {})
    arguments = {name: value for name, value in stored.items() if not name.startswith("_")}
    return {"class_path": stored["_class_path"], "init_args": arguments} if "_class_path" in stored else None


def load_module(path: str | Path) -> AdversarialModule:
    """Rebuild the module in a checkpoint that a command line made: on the CPU, in eval mode.

    Runs no code of the file, but imports the classes that it names. Global random number generators stay as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, was cut short, holds more than data, or does not describe its module.
    """
    description = described(read_checkpoint(path))
    if description is None:
        raise ValueError(
            f"{path}: its module was built in Python, so its weights are there but not its code: take a checkpoint "
            "that the command line made"
        )
    with suppress(ImportError):  # Lightning says what it looked for
        importlib.import_module(description["class_path"].rpartition(".")[0])
    # A tensor made under inference mode cannot take part in autograd; building a network draws random weights, in
    # torch's default dtype, which the precision of a trainer sets while it runs.
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            return AdversarialModule.load_from_checkpoint(path, map_location="cpu").eval()
    finally:
        torch.set_default_dtype(dtype)


def names_of(checkpoints: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
    """Return a name for each path: those given, or the last part of the paths in which all differ, or all parts that
    are not alike.

    Raises:
        ValueError: there is another number of names.
    """
    if names is None:
        parts = [[*reversed(Path(path).absolute().with_suffix("").parts)] for path in checkpoints]
        columns = [list(column) for column in zip(*parts, strict=False)]
        unlike = [column for column in columns if len(set(column)) > 1] or columns[:1]
        joined = ["-".join(reversed(row)) for row in zip(*unlike, strict=True)]
        names = next((column for column in columns if len(set(column)) == len(checkpoints)), joined)
    if len(names) != len(checkpoints):
        raise ValueError(f"names has {len(names)} for {len(checkpoints)} networks: give one for each")
    return list(names)
