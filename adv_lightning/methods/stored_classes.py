"""Class paths in a checkpoint: which objects a file may have built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_KINDS = (nn.Module, Optimizer, LRScheduler)
_TRANSFORMS = "torchvision.transforms"


def check_classes(stored: Any, file: Any) -> None:
    """Check the settings in a checkpoint before anything is built from them.

    An argument that takes any function, such as `loss_fn`, would take an object of any class that can be called, and
    building it would run its constructor. So such a class must be an `nn.Module`, an optimizer, a scheduler or one of
    torchvision's transforms. A function in the place of a class must be annotated to return one of these. Of other
    arguments the parser asks for a subclass of what they are annotated with.

    Args:
        stored: Settings, of any kind.
        file: The checkpoint, which an error names.

    Raises:
        ValueError: they name a class of another kind.
    """
    for path, as_class in _paths(stored):
        found = _found(path)
        if inspect.isclass(found):
            known = issubclass(found, _KINDS) or found.__module__.startswith(_TRANSFORMS)
            if known or not any("__call__" in vars(base) for base in found.__mro__):
                continue
        elif not as_class or not callable(found) or _returns(found):
            continue
        raise ValueError(
            f"{file} names {path}, which is neither an nn.Module nor says that it returns one, so it is not built. If "
            "you trust the file, build the object yourself and pass it"
        )


def _paths(stored: Any, as_class: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield every string that may name a class or function, and whether it stands where a class belongs."""
    if isinstance(stored, Mapping):
        for name, value in stored.items():
            yield from _paths(value, name in ("class_path", "_class_path"))
    elif isinstance(stored, list | tuple):
        for value in stored:
            yield from _paths(value)
    elif isinstance(stored, str) and all(part.isidentifier() for part in stored.split(".")) and "." in stored:
        yield stored, as_class


def _found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    with suppress(Exception):  # a module may raise anything; what builds from the path says that it is not there
        return getattr(importlib.import_module(module), name, None)
    return None


def _returns(function: Any) -> bool:
    """Whether a function is annotated to return an object of a known kind."""
    with suppress(Exception):  # names in annotations may be unknown
        kind = get_type_hints(function).get("return")
        return inspect.isclass(kind) and issubclass(kind, _KINDS)
    return False
