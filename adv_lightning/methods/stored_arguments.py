"""What of a module's arguments goes into a checkpoint, what is left out, and how they come back."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping
from typing import Any, TypeVar

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn

from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.constructor_arguments import KeepsArguments, constructor_arguments
from adv_lightning.attacks.constructor_arguments import forget_arguments as forget_arguments
from adv_lightning.attacks.description import build
from adv_lightning.attacks.plain_values import KIND, not_plain, plain, read, readable
from adv_lightning.methods.base import Method
from adv_lightning.methods.moved_paths import moved

Arguments = dict[str, Any]
T = TypeVar("T")

ASKED_FOR = ("backbone", "loss_fn")
"""Left out without a word: loading asks for the backbone, and compares the loss by its text."""


def storable(instance: Any) -> dict[str, Any]:
    """Describe an attack or a method for a checkpoint.

    Where an argument is not data, such as a function or a network, `init_args` is None: the class is remembered, and
    loading asks for the object.
    """
    description: dict[str, Any] = instance.config()
    whole = next(not_plain(description, ""), None) is None
    return description if whole else {"class_path": description["class_path"], "init_args": None}


def own_arguments(module: nn.Module, base: type) -> Arguments | None:
    """Return what the constructor of a subclass was given, and forget it; None if it has the constructor of `base`."""
    own = any("__init__" in kind.__dict__ for kind in type(module).__mro__[: type(module).__mro__.index(base)])
    arguments = constructor_arguments(module) if own else None
    forget_arguments(module)
    return arguments


def split(arguments: Mapping[str, Any], *, tagged: bool = True) -> tuple[Arguments, Arguments]:
    """Return the arguments that a checkpoint can hold, as data, and those that it cannot.

    Args:
        arguments: By name.
        tagged: Whether `restore` brings them back. Otherwise they are written as a configuration file has them.
    """
    kept, left_out = {}, {}
    for name, value in arguments.items():
        data = storable(value) if isinstance(value, Attack | Method) else plain(value)
        if next(not_plain(data, name), None) is None:
            kept[name] = data if tagged else readable(data)
        else:
            left_out[name] = value
    return kept, left_out


def warn_of_left_out(left_out: Mapping[str, Any], owner: str) -> None:
    """Say which arguments a checkpoint does not hold, and what to do."""
    named = {name: value for name, value in left_out.items() if name not in ASKED_FOR}
    if named:
        text = ", ".join(f"{name} ({_short(value)})" for name, value in named.items())
        rank_zero_warn(
            f"the checkpoint does not hold {text} of {owner}: it is not data. Pass it again when loading, as in "
            f"load_from_checkpoint(path, {next(iter(named))}=...), or give data, such as "
            "functools.partial(torch.optim.SGD, lr=0.1) in place of a lambda"
        )


def restore(stored: Mapping[str, Any], given: Container[str]) -> Arguments:
    """Return the arguments in a checkpoint that are more than data, as the objects that they were.

    Args:
        stored: The arguments in a checkpoint that `split` made.
        given: Names of those that are passed anew, so that they are not read.

    Raises:
        TypeError: an argument names what a file may not name, or cannot be rebuilt.
        ImportError: a class is not there.
    """
    restored = {}
    for name, value in stored.items():
        if name in given or not _is_more_than_data(value):
            continue
        try:
            restored[name] = read(moved(value), _object)
        except (TypeError, ImportError) as error:
            raise type(error)(f"{name} cannot be restored from the checkpoint: {error}; pass {name}=") from error
    return restored


def check_left_out(names: Mapping[str, str], given: Container[str], kind: type) -> None:
    """Say which arguments a checkpoint could not hold, and that are not passed.

    Args:
        names: Those that were left out, with a text for each.
        given: Names of what is passed.
        kind: The class that is built.

    Raises:
        TypeError: one has no default.
    """
    missing = {name: text for name, text in names.items() if name not in given and name not in ASKED_FOR}
    if not missing:
        return
    parameters = inspect.signature(kind).parameters
    text = ", ".join(f"{name} ({text})" for name, text in missing.items())
    if any(name in parameters and parameters[name].default is inspect.Parameter.empty for name in missing):
        raise TypeError(f"the checkpoint does not hold {text} of {kind.__name__}: pass {', '.join(missing)}=")
    rank_zero_warn(
        f"the checkpoint does not hold {text} of {kind.__name__}, so the default is used: pass {next(iter(missing))}= "
        "if that is not intended"
    )


def warn_of_other_arguments(
    stored: Mapping[str, Any], fixed: Mapping[str, Any], here: Mapping[str, Any], base: type
) -> None:
    """Warn if a module has other arguments than the one in the checkpoint that is loaded into it.

    Args:
        stored: The arguments in the checkpoint.
        fixed: What the subclass in the checkpoint gave the base class itself, or left to its defaults: these may have
            changed since.
        here: The module's hyper-parameters.
        base: The class whose arguments may differ otherwise: who builds a module chooses how it goes on.
    """
    before = {name: value for name, value in stored.items() if name not in inspect.signature(base).parameters}
    before |= {name: value for name, value in fixed.items() if name not in stored}
    texts = [
        f"{name}={before[name]!r}, and this one has {here[name]!r}"
        for name in sorted(before.keys() & here.keys())
        if _is_simple(before[name]) and _is_simple(here[name]) and before[name] != here[name]
    ]
    if texts:
        text = "; ".join(texts)
        rank_zero_warn(f"the module in the checkpoint was built with {text}. Give it the former if not intended")


def _is_simple(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_simple, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def texts(left_out: Mapping[str, Any]) -> dict[str, str]:
    """Return a text for each value that a checkpoint cannot hold."""
    return {name: _short(value) for name, value in left_out.items()}


def _object(description: Mapping[str, Any]) -> Any:
    if description.get("init_args", {}) is None:
        raise TypeError(f"it was a {description.get('class_path')} with arguments that a checkpoint cannot hold")
    return build(description, KeepsArguments)  # an attack or a method


def _is_more_than_data(value: Any) -> bool:
    if isinstance(value, Mapping):
        return KIND in value or "class_path" in value or any(map(_is_more_than_data, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_more_than_data, value))


def _short(value: Any) -> str:
    text = repr(value).partition("\n")[0]
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def restored(name: str, value: Any, kind: type[T], example: str) -> T | None:
    """Return an argument of the module, built if a checkpoint gives its description; None stays None.

    Args:
        name: Of the argument.
        value: An object of `kind`, a description, or None.
        kind: The class that it must be of.
        example: What the error recommends.

    Raises:
        TypeError: it is something else.
        ImportError: the description is of a class that is not there.
    """
    if isinstance(value, dict) and value.get("init_args", {}) is None:
        raise TypeError(
            f"the {name} was a {value['class_path']} with arguments that a checkpoint cannot hold: pass {name}="
        )
    if isinstance(value, dict):
        return build(moved(value), kind)
    if value is not None and not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(
            f"{name}={value!r} is a {type(value).__name__}: pass {article} {kind.__name__} such as {example}, or None"
        )
    return value
