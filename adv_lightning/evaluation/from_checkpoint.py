"""Modules rebuilt from checkpoints."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from adv_lightning.methods.checkpoint_format import described, read_checkpoint
from adv_lightning.module import AdversarialModule


def load_module(path: str | Path) -> AdversarialModule:
    """Rebuild the module in a checkpoint that the command line made: on the CPU, in eval mode.

    Runs no code from the file, but imports the classes that it names. Global random number generators do not change.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not a checkpoint, is truncated, contains more than data, does not describe its module,
            or describes one that cannot be built.
    """
    description = described(read_checkpoint(path))
    if description is None:
        raise ValueError(
            f"{path}: the module was built in Python, so the checkpoint has its weights but cannot rebuild it: give a "
            "checkpoint that the command line made"
        )
    with suppress(Exception):  # Lightning reports what it looked for
        importlib.import_module(description["class_path"].rpartition(".")[0])
    # A tensor made under inference mode cannot take part in autograd. Building a network draws random weights, in
    # torch's default dtype, which a trainer's precision changes while it runs.
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            return AdversarialModule.load_from_checkpoint(path, map_location="cpu").eval()
    except OSError:  # names a file of its own
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if isinstance(error, ValueError) and reason.startswith(str(path)):
            raise
        raise ValueError(f"{path}: its module cannot be built again: {type(error).__name__}: {reason}") from error
    finally:
        torch.set_default_dtype(dtype)


def names_of(checkpoints: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
    """Return a name for each path.

    The names are those given, or the last part of the paths in which all differ, or all parts in which some differ.

    Raises:
        ValueError: the numbers of names and of paths differ, or a path without a name is there twice.
    """
    if names is None:
        parts = [[*reversed(Path(path).absolute().with_suffix("").parts)] for path in checkpoints]
        columns = [list(column) for column in zip(*parts, strict=False)]
        unlike = [column for column in columns if len(set(column)) > 1] or columns[:1]
        joined = ["-".join(reversed(row)) for row in zip(*unlike, strict=True)]
        names = next((column for column in columns if len(set(column)) == len(checkpoints)), joined)
        for path, name in zip(checkpoints, names, strict=True):
            if names.count(name) > 1:
                raise ValueError(f"{path} is there twice: remove one, or set names to give each network its own name")
    if len(names) != len(checkpoints):
        raise ValueError(f"names has {len(names)} entries for {len(checkpoints)} networks: give one for each")
    return list(names)
