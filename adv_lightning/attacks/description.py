"""Attacks and methods as data: `{class_path, init_args}`, made from an object, built into one, written as a call."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from adv_lightning.attacks.constructor_arguments import constructor_arguments
from adv_lightning.attacks.plain_values import class_path as class_path
from adv_lightning.attacks.plain_values import plain, read, readable

T = TypeVar("T")

_ALWAYS = ("eps", "steps", "bounds", "seed")
"""Arguments that a call shows even at their defaults, because results depend on them."""


def describe(instance: Any) -> dict[str, Any]:
    """Return `{class_path, init_args}` of an object: its constructor's arguments, as its attributes have them now.

    An argument that is no attribute is described as it was given. What is no plain data stays as it is.
    """
    given = constructor_arguments(instance)
    arguments = {name: getattr(instance, name, value) for name, value in given.items()}
    return {
        "class_path": class_path(type(instance)),
        "init_args": {name: _setting(value) for name, value in arguments.items()},
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
    return ", ".join(
        f"{k}={as_call(v) if isinstance(v, Mapping) and 'class_path' in v else readable(v)}" for k, v in arguments
    )


def _setting(value: Any) -> Any:
    """Return a setting as plain data; a tensor without dimensions is a number."""
    scalar = type(value) is Tensor and value.dim() == 0
    return value.item() if scalar else plain(value)


def _built(value: Any) -> Any:
    # Attacks and methods are modules; a file must not name anything else.
    return read(value, lambda description: build(description, nn.Module))


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        return as_call(value)
    return in_short(value) if isinstance(value, float) else str(readable(value))


def in_short(size: float) -> str:
    """Write a size with four digits, or as n/255, n up to 64, if it is that and has no short decimal."""
    steps = round(255 * size)
    is_fraction = 0 < steps <= 64 and abs(255 * size - steps) < 1e-6 and float(f"{size:.3g}") != size
    return f"{steps}/255" if is_fraction else f"{size:.4g}"
