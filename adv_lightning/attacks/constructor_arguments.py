"""What an object's constructor was given, without asking anything of its class."""

from __future__ import annotations

import inspect
from functools import cache
from types import FrameType
from typing import Any, Self

from torch import Tensor, nn

from adv_lightning.attacks.plain_values import number

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
UNNAMED = "*args"
"""Key of positional arguments that have no name to be given by."""


class KeepsArguments:
    """Base class that remembers the constructor's arguments, until `forget_arguments`; to stand after `nn.Module`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        instance = super().__new__(cls)
        instance.__dict__["_given_arguments"] = args, kwargs  # past nn.Module's own way, which is not ready yet
        return instance


def plain_setting(module: nn.Module, name: str, value: Any) -> Any:
    """Return what to set an attribute to: numpy's numbers as Python's, and a constructor argument's tensors too.

    Rules ask whether `steps` is an int, and records hold it.
    """
    kind: Any = type(module)
    scalar = type(value) is Tensor and value.dim() == 0 and not value.requires_grad
    if scalar and name not in dict(module.named_buffers(recurse=False)) and name in parameter_names(kind):
        return value.item()
    return number(value)


def forget_arguments(instance: Any) -> None:
    """Let go of what the constructor was given."""
    instance.__dict__.pop("_given_arguments", None)


def constructor_arguments(instance: Any) -> dict[str, Any]:
    """Return all arguments by which an object can be built again: those that its constructor names, with defaults, and
    those that it was given in `**kwargs` or `*args`.

    Positional ones in `*args` get the names by which the next class takes them; under `UNNAMED` if there are none.
    """
    args, kwargs = instance.__dict__.get("_given_arguments", ((), {}))
    signature, further = _signature(type(instance))
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # built without its constructor
        return {name: p.default for name, p in signature.parameters.items() if p.kind not in _VARIADIC}
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            found[name] = value
        elif value:
            names = [name for name in further if name not in signature.parameters]
            if len(names) < len(value):
                return {**found, UNNAMED: value}
            found |= dict(zip(names, value, strict=False))
    return found


def outermost_frame() -> FrameType | None:
    """Return the frame of the program itself, in which no constructor runs."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


@cache
def parameter_names(kind: type) -> frozenset[str]:
    """Return the names that a class's constructor, or one that it hands further arguments to, gives its arguments."""
    names: list[str] = []
    for signature in _signatures(kind):
        names += [name for name, p in signature.parameters.items() if p.kind not in _VARIADIC]
        if not any(p.kind in _VARIADIC for p in signature.parameters.values()):
            break
    return frozenset(names)


def _signature(kind: type) -> tuple[inspect.Signature, list[str]]:
    """Return the signature of a class's constructor, and the names of the positional parameters of the next one."""
    first, *others = [*_signatures(kind), inspect.Signature()]
    for signature in others:
        names = [n for n, p in signature.parameters.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        if names or not signature.parameters:
            return first, names
    return first, []


@cache
def _signatures(kind: type) -> list[inspect.Signature]:
    """Return the signatures of the constructors of a class and its bases, up to torch's and Lightning's own."""
    found = []
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "lightning", "builtins"):
            break
        if "__init__" in base.__dict__:
            whole = inspect.signature(base.__dict__["__init__"])
            found.append(whole.replace(parameters=list(whole.parameters.values())[1:]))
    return found
