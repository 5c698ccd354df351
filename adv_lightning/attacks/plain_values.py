"""Settings as plain data, which files hold and safe loading reads, and back.

`plain` writes what is no plain data itself as a dict with the key `KIND`; `read` turns it into the object again. Only
objects of the kinds here come back. Nothing is imported or called for a file: classes are looked up in modules that are
imported already, and a dataclass gets its fields without its constructor.

Length: one table of kinds, with a way to write and a way to read each.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from numbers import Complex, Integral, Real
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

KIND = "adv_lightning_kind"
"""Key of a dict that stands for an object which is no plain data."""

_OF_TORCH = (Tensor, nn.Parameter, torch.dtype, torch.device, torch.Size)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), *_OF_TORCH)
_FACTORIES = (nn.Module, Optimizer, LRScheduler)
"""The classes that a file may name as such, or with arguments to call them with."""


def number(value: Any) -> Any:
    """Return a number of numpy as Python's; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        item = value.item()
        return float(item) if isinstance(item, np.generic) else item  # a long double gives itself
    return value


def plain_numbers(value: Any) -> Any:
    """Return nested dicts, lists and tuples with numpy's numbers as Python's; all else stays as it is."""
    if type(value) in (dict, OrderedDict):
        return type(value)((plain_numbers(k), plain_numbers(v)) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(map(plain_numbers, value))
    return number(value)


def plain(value: Any) -> Any:
    """Return a setting as plain data, if it can be. What `read` cannot bring back is returned as it is."""
    value = number(value)
    if type(value) in _PLAIN:
        return value
    for kind, write in _KINDS:
        if isinstance(value, kind) and (written := write(value)) is not None:
            return written
    return value


def not_plain(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Find what `plain` has left as it was: name, such as "layers[0]", and value."""
    if isinstance(value, Mapping) and type(value) in (dict, OrderedDict):
        for key, each in value.items():
            yield from not_plain(each, name if KIND in value else f"{name}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, each in enumerate(value):
            yield from not_plain(each, f"{name}[{i}]")
    elif type(value) not in _PLAIN:
        yield name, value


def read(value: Any, build: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return what `plain` was given.

    Args:
        value: What `plain` returned.
        build: Builds the object of a `{class_path, init_args}`.

    Raises:
        TypeError: it names a kind, or a class, that a file may not name.
        ImportError: a class is not there, or not imported yet.
    """
    if isinstance(value, Mapping):
        if KIND in value:
            reader = _READERS.get(value[KIND]) if isinstance(value[KIND], str) else None
            if reader is None:
                raise TypeError(f"a value is of the kind {value[KIND]!r}, which this adv_lightning does not know")
            try:
                return reader(value, lambda each: read(each, build))
            except (KeyError, AttributeError, ValueError) as error:
                raise TypeError(f"a value of the kind {value[KIND]!r} is damaged: {error!r}") from error
        return build(value) if "class_path" in value else {k: read(v, build) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(read(each, build) for each in value)
    return value


def readable(value: Any) -> Any:
    """Return a setting as configuration files and JSON write it: no `KIND`, a path as its text, NaN and infinity kept.

    What is no data at all is returned as it is.
    """
    return _without_kinds(plain(value))


def _without_kinds(value: Any) -> Any:
    if isinstance(value, Mapping):
        kind = value.get(KIND)
        if kind == "dict":
            return _without_kinds(dict(value["value"]))  # of an object that was plain before, too
        if kind is not None and kind != "partial":
            key = {"enum": "name", "class": "class_path", "record": "fields"}.get(str(kind), "value")
            return _without_kinds(value[key])
        return {_without_kinds(k): _without_kinds(v) for k, v in value.items() if k != KIND}
    if type(value) in (list, tuple):
        return type(value)(map(_without_kinds, value))
    return tuple(value) if type(value) is torch.Size else value


def jsonable(value: Any) -> Any:
    """Return a record as JSON can hold it: NaN and infinity as None, tensors as numbers, all else as text."""
    return _json(readable(value))


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if isinstance(value, Tensor):
        return _json(value.tolist()) if value.numel() <= _SHOWN else f"tensor of shape {list(value.shape)}"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


_SHOWN = 1000
"""Largest number of elements of a tensor that a record shows."""


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


# How each kind is written (None: this one cannot be) and read


def imported(path: Any) -> Any:
    """Return what an imported module has at a path; None if there is nothing, or it is local to a function."""
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    while module and module not in sys.modules:  # a class inside a class
        module, _, outer = module.rpartition(".")
        name = f"{outer}.{name}"
    found: Any = sys.modules.get(module)
    ours = module.partition(".")[0] == __name__.partition(".")[0]
    for part in name.split("."):
        # What is asked of another package must not make it import anything; this one imports its names late.
        found = getattr(found, part, None) if ours else getattr(found, "__dict__", {}).get(part)
    return found


def _class(path: Any, is_kind: Callable[[type], bool], kind: str) -> Any:
    found = imported(path)
    if found is None:
        raise ImportError(f"{path!r} is not there: import the module that defines it before loading")
    if not inspect.isclass(found) or not is_kind(found):
        raise TypeError(f"{path!r} is not {kind}, so a file may not name it")
    return found


def _path_of(kind: type) -> str | None:
    path = class_path(kind)
    return path if imported(path) is kind else None


def _is_factory(kind: type) -> bool:
    return issubclass(kind, _FACTORIES)


_FACTORY = "a class of modules, optimizers or schedulers"


def _write_enum(value: Enum) -> Any:
    path, name = _path_of(type(value)), value.name
    known = path is not None and name in type(value).__members__
    return {KIND: "enum", "class_path": path, "name": name} if known else None


def _read_enum(stored: Mapping[str, Any], inner: Callable[[Any], Any]) -> Any:
    members = _class(stored["class_path"], lambda kind: issubclass(kind, Enum), "an Enum").__members__
    if stored["name"] not in members:
        raise TypeError(f"{stored['class_path']} has no member {stored['name']!r}: it has {', '.join(members)}")
    return members[stored["name"]]


def _write_class(value: type) -> Any:
    path = _path_of(value) if _is_factory(value) else None
    return {KIND: "class", "class_path": path} if path else None


def _write_partial(value: functools.partial[Any]) -> Any:
    kind = value.func
    path = _path_of(kind) if inspect.isclass(kind) and _is_factory(kind) and not value.args else None
    arguments = {name: plain(each) for name, each in value.keywords.items()}
    return {KIND: "partial", "class_path": path, "init_args": arguments} if path else None


def _read_partial(stored: Mapping[str, Any], inner: Callable[[Any], Any]) -> Any:
    found = _class(stored["class_path"], _is_factory, _FACTORY)
    return functools.partial(found, **{name: inner(each) for name, each in stored["init_args"].items()})


def _is_record(kind: type) -> bool:
    named_tuple = tuple in kind.__bases__ and "__match_args__" in kind.__dict__
    return dataclasses.is_dataclass(kind) or named_tuple


def _field_names(kind: Any) -> list[str]:
    if issubclass(kind, tuple):
        return list(kind.__match_args__)
    return [field.name for field in dataclasses.fields(kind)]


def _write_record(value: Any) -> Any:
    if not _is_record(type(value)) or isinstance(value, nn.Module) or (path := _path_of(type(value))) is None:
        return None
    names = _field_names(type(value))
    if not isinstance(value, tuple):
        try:
            object.__new__(type(value))
        except TypeError:  # a dict or another built-in class with fields of its own
            return None
        names += [name for name in getattr(value, "__dict__", {}) if name not in names]  # set by __post_init__
    return {KIND: "record", "class_path": path, "fields": {name: plain(getattr(value, name)) for name in names}}


def _read_record(stored: Mapping[str, Any], inner: Callable[[Any], Any]) -> Any:
    kind = _class(stored["class_path"], _is_record, "a dataclass or a named tuple")
    fields = {name: inner(each) for name, each in stored["fields"].items()}
    if issubclass(kind, tuple):
        return tuple.__new__(kind, [fields[name] for name in _field_names(kind)])
    record = object.__new__(kind)
    for name in _field_names(kind):
        object.__setattr__(record, name, fields.pop(name))  # a frozen one, too, and without code of its own
    if fields:
        record.__dict__.update(fields)
    return record


def _write_mapping(value: Mapping[Any, Any]) -> Any:
    items = [(plain(k), plain(v)) for k, v in value.items()]
    if all(isinstance(k, bool | int | float | str | None) for k, _ in items) and not {KIND, "class_path"} & {*value}:
        return dict(items)
    return {KIND: "dict", "value": [list(item) for item in items]}


def _write_module(value: nn.Module) -> Any:
    description = value.config() if callable(getattr(value, "config", None)) else None  # type: ignore[operator]
    return description if isinstance(description, dict) and "class_path" in description else None


def _write_array(value: np.ndarray[Any, Any]) -> Any:
    try:
        return {KIND: "array", "value": torch.from_numpy(value.copy())}
    except TypeError:  # text or objects
        return None


def _write_number(value: Complex) -> Any:
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    return complex(value)


def _items(kind: str) -> Callable[[Any], Any]:
    return lambda value: {KIND: kind, "value": [plain(each) for each in value]}


_KINDS: list[tuple[Any, Callable[[Any], Any]]] = [
    (Enum, _write_enum),  # before numbers: an IntEnum is one
    (type, _write_class),
    (functools.partial, _write_partial),
    (nn.Module, _write_module),
    (PurePath, lambda value: {KIND: "path", "value": str(value)}),
    (range, lambda value: {KIND: "range", "value": [value.start, value.stop, value.step]}),
    (frozenset, _items("frozenset")),
    (set, _items("set")),
    (np.ndarray, _write_array),
    (Mapping, _write_mapping),
    (object, lambda value: [plain(each) for each in value] if type(value) is list else None),
    (object, lambda value: tuple(plain(each) for each in value) if type(value) is tuple else None),
    (object, _write_record),
    (Complex, _write_number),
    (str, str),
]

_READERS: dict[str, Callable[[Mapping[str, Any], Callable[[Any], Any]], Any]] = {
    "enum": _read_enum,
    "class": lambda stored, inner: _class(stored["class_path"], _is_factory, _FACTORY),
    "partial": _read_partial,
    "path": lambda stored, inner: Path(stored["value"]),
    "range": lambda stored, inner: range(*stored["value"]),
    "frozenset": lambda stored, inner: frozenset(map(inner, stored["value"])),
    "set": lambda stored, inner: set(map(inner, stored["value"])),
    "array": lambda stored, inner: stored["value"].numpy(),
    "dict": lambda stored, inner: {inner(k): inner(v) for k, v in stored["value"]},
    "record": _read_record,
}
