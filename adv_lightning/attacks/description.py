"""Attacks and methods as data: `{class_path, init_args}`, made from an object, built into one, written as a call."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from numbers import Integral, Real
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
    path, arguments = description.get("class_path"), description.get("init_args") or {}
    if not isinstance(path, str) or not isinstance(arguments, Mapping):
        raise TypeError(f"{dict(description)!r} is not a description: expected {{class_path: str, init_args: mapping}}")
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module and not module.startswith(".") else None
    if found is None:
        raise ImportError(f"class_path={path!r}: no such class")
    if not (inspect.isclass(found) and issubclass(found, kind)):
        raise TypeError(f"class_path={path!r} is not a subclass of {kind.__name__}")
    instance: T = found(**{name: _built(value) for name, value in arguments.items()})
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
    arguments = describe(instance)["init_args"].items()
    return ", ".join(f"{k}={as_call(v) if isinstance(v, Mapping) and 'class_path' in v else v}" for k, v in arguments)


def _described(value: Any) -> Any:
    """Return a value as checkpoints can hold it: attacks and methods described, numpy's numbers as Python's."""
    if isinstance(value, nn.Module) and hasattr(value, "config"):
        description: dict[str, Any] = value.config()  # type: ignore[operator]  # torch types attributes as tensors
        return description
    if type(value) is list:
        return [_described(each) for each in value]
    if type(value) is tuple:
        return tuple(_described(each) for each in value)
    if isinstance(value, Mapping):
        return {key: _described(each) for key, each in value.items()}
    if isinstance(value, Real) and not isinstance(value, int | float):
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(each) for each in value]
    if isinstance(value, Mapping) and "class_path" in value:
        return build(value, nn.Module)  # attacks and methods are modules; a file must not name anything else
    return value


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        return as_call(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
