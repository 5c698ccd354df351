"""Class paths in a checkpoint: which objects a file may have built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_KINDS = (nn.Module, Optimizer, LRScheduler)
_TRANSFORMS = "torchvision.transforms"
_SOURCES = {"pretrained": False, "checkpoint_path": None}
_INSTANTIATORS = ("lightning.pytorch.cli.instantiate_module", "pytorch_lightning.cli.instantiate_module")
"""What Lightning's command line names in its checkpoints: it builds the module from their settings."""


def check_classes(stored: Any, file: Any) -> None:
    """Check the settings in a checkpoint before anything is built from them.

    An argument that takes any function, such as `loss_fn`, would take an object of any class that can be called, and
    building it would run its constructor. So such a class must be an `nn.Module`, an optimizer, a scheduler or one of
    torchvision's transforms. A function in the place of a class must be annotated to return one of these, any other
    function to return one or a tensor. Of other arguments the parser asks for a subclass of what they are annotated
    with.

    Args:
        stored: Settings, of any kind.
        file: The checkpoint, which an error names.

    Raises:
        ValueError: they name a class of another kind.
    """
    for path in refused(stored, parsed=_is_parsed(stored)):
        raise ValueError(
            f"{file} names {path}, which is neither an nn.Module nor says that it returns one or a tensor, so it is "
            "not built. If you trust the file, build the object yourself and pass it"
        )


def refused(stored: Any, parsed: bool = True) -> Iterator[str]:
    """Yield the import paths in settings that `check_classes` refuses.

    Args:
        stored: Settings, of any kind.
        parsed: Whether a parser reads them, which takes a string for a function where an argument takes one.
    """
    for path, as_class in _paths(stored):
        found = _found(path)
        if inspect.isclass(found):
            known = issubclass(found, _KINDS) or found.__module__.startswith(_TRANSFORMS)
            if not known and any("__call__" in vars(base) for base in found.__mro__):
                yield path
        elif (
            (as_class or parsed) and callable(found) and not _returns(found, _KINDS if as_class else (*_KINDS, Tensor))
        ):
            yield path


def _is_parsed(stored: Any) -> bool:
    """Whether settings are those of a command line, or one of several settings is."""
    if isinstance(stored, Mapping):
        return "_class_path" in stored or "_instantiator" in stored
    return any(map(_is_parsed, stored or ()))


def check_importable(stored: Any, file: Any) -> None:
    """Check that the classes and functions that settings name are there.

    Raises:
        ImportError: one is not.
    """
    for path in (path for path, as_class in _paths(stored) if as_class and _found(path) is None):
        raise ImportError(
            f"{file} names {path}, which cannot be imported here: install its package, add its folder to PYTHONPATH, "
            "or pass what it builds"
        )


def without_sources(settings: Any) -> Any:
    """Return settings whose networks of timm fetch no weights and read no other file: a checkpoint has the weights."""
    if isinstance(settings, list):
        return [without_sources(each) for each in settings]
    if not isinstance(settings, Mapping):
        return settings
    result = {name: without_sources(value) for name, value in settings.items()}
    given = result.get("init_args")
    if str(result.get("class_path")).startswith("timm.") and isinstance(given, dict):
        result["init_args"] = given | {name: value for name, value in _SOURCES.items() if name in given}
    return result


def _paths(stored: Any, as_class: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield every string that may name a class or function, and whether it stands where a class belongs."""
    if isinstance(stored, Mapping):
        for name, value in stored.items():
            if name == "_instantiator" and value in _INSTANTIATORS:
                continue
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


def _returns(function: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a function is annotated to return an object of one of the kinds."""
    with suppress(Exception):  # names in annotations may be unknown
        kind = get_type_hints(function).get("return")
        return inspect.isclass(kind) and issubclass(kind, kinds)
    return False
