"""Class paths in a checkpoint: which objects a file may have built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from adv_lightning.attacks.plain_values import imported

_KINDS = (nn.Module, Optimizer, LRScheduler)
_TRANSFORMS = "torchvision.transforms"
_CLASS_PATHS = ("_class_path", "class_path")
_UNKNOWN = object()
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
    find = _found if parsed else imported  # what no parser reads is not imported for it either
    for path, as_class in _paths(stored, find):
        found = find(path)
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
    for path in (path for path, as_class in _paths(stored, _found) if as_class and _found(path) is None):
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


def _paths(stored: Any, find: Callable[[str], Any], owner: Any = None) -> Iterator[tuple[str, bool]]:
    """Yield every string that names a class or function, and whether it stands where a class belongs.

    A string elsewhere names a function only where an argument takes one. Others are text, such as a folder
    "pictures.v2", and must not be imported.

    Args:
        stored: Settings, of any kind.
        find: Returns what is at an import path, or None.
        owner: The class or function whose arguments they are, if it is known.
    """
    if isinstance(stored, list | tuple):
        for value in stored:
            yield from _paths(value, find, owner)
    if not isinstance(stored, Mapping):
        return
    named = next((stored[name] for name in _CLASS_PATHS if isinstance(stored.get(name), str)), None)
    if named is not None:
        owner = (find(named) if _is_path(named) else None) or _UNKNOWN
    for name, value in stored.items():
        if name == "_instantiator":
            yield from [] if value in _INSTANTIATORS else [(str(value), True)]
        elif name in _CLASS_PATHS:
            yield from [(value, True)] if _is_path(value) else []
        elif _takes_function(owner, name):
            strings = value if isinstance(value, list | tuple) else [value]
            yield from ((each, False) for each in strings if _is_path(each))
            yield from _paths(value, find)
        else:
            yield from _paths(value, find, owner if name in ("init_args", "dict_kwargs") else None)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split("."))


def _takes_function(owner: Any, name: str) -> bool:
    """Whether an argument takes a function, as its annotation says; that of an unknown class or function may."""
    if owner is _UNKNOWN:
        return True
    makers = (
        [vars(base)["__init__"] for base in owner.__mro__ if "__init__" in vars(base)]
        if inspect.isclass(owner)
        else [owner]
    )
    for maker in makers:
        with suppress(TypeError, ValueError):  # it has no signature
            found = inspect.signature(maker).parameters.get(str(name))
            if found is not None:
                return "Callable" in str(found.annotation)
    return False


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
