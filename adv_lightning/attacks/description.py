"""Attacks and methods as data: `{class_path, init_args}`, made from an object, built into one, written as a call."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

_ALWAYS = ("eps", "steps", "bounds", "seed")
"""Arguments that a call shows even at their defaults, because results depend on them."""


def class_path(kind: type) -> str:
    """Return the shortest path that a class can be imported from, such as `adv_lightning.FGSM`.

    Checkpoints and records contain these paths, so that files may move inside the package.
    """
    parts = kind.__module__.split(".")
    for depth in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:depth]))
        if kind.__name__ in getattr(package, "__all__", ()) and getattr(package, kind.__name__) is kind:
            return f"{'.'.join(parts[:depth])}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def describe(instance: Any) -> dict[str, Any]:
    """Return `{class_path, init_args}` of an object that keeps its constructor's arguments as attributes."""
    # A class without a constructor of its own inherits torch's, (*args, **kwargs).
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [p.name for p in inspect.signature(type(instance)).parameters.values() if p.kind not in variadic]
    return {
        "class_path": class_path(type(instance)),
        "init_args": {name: _described(getattr(instance, name)) for name in names},
    }


def build(description: Mapping[str, Any], kind: type[T]) -> T:
    """Build the object that a description describes.

    Args:
        description: `{class_path, init_args}`; arguments may be descriptions too.
        kind: The class that the object must be an instance of.

    Raises:
        ImportError: the class cannot be imported.
        TypeError: the class is not a subclass of `kind`, or does not accept the arguments.
    """
    path = str(description["class_path"])
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    if found is None:
        raise ImportError(f"class_path={path!r}: no such class")
    if not (inspect.isclass(found) and issubclass(found, kind)):
        raise TypeError(f"class_path={path!r} is not a subclass of {kind.__name__}")
    arguments = {name: _built(value) for name, value in (description.get("init_args") or {}).items()}
    instance: T = found(**arguments)
    return instance


def class_name(description: Mapping[str, Any]) -> str:
    """Return the name of the described class, without its module."""
    return str(description["class_path"]).rpartition(".")[2]


def as_call(description: Mapping[str, Any]) -> str:
    """Write a description as a call, such as `FGSM(eps=0.25, bounds=None)`, without most defaults."""
    module, _, name = str(description["class_path"]).rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    defaults = {} if kind is None else {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    given = description.get("init_args") or {}
    shown = {k: v for k, v in given.items() if k in _ALWAYS or k not in defaults or v != defaults[k]}
    return f"{name}({', '.join(f'{key}={_short(value)}' for key, value in shown.items())})"


def keyword_arguments(instance: Any) -> str:
    """Write an object's arguments as in a call of its constructor."""
    return ", ".join(f"{name}={value}" for name, value in describe(instance)["init_args"].items())


def _described(value: Any) -> Any:
    return value.config() if hasattr(value, "config") else value


def _built(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return build(value, nn.Module)  # attacks and methods are modules; a file must not name anything else
    return value


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        return as_call(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
