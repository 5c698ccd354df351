"""Command-line errors in a few lines, with the nearest valid names."""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path

# What the parser says of the alternatives it tried; the line that says what is wrong stands among these.
_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: |Errors:|Expected a <class 'NoneType'>"
    r"|Expected a path but .* either not accessible or invalid|Given value type: "
    r"|Given value: (Namespace|NestedArg|\{|\[)"
)
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)": ?(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)':")
_OPTION = re.compile(r"Option '(?P<name>[^']+)' is not accepted")
_NO_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<name>\S+)|does not accept option '(?P<nested>[^']+)'")
_CHOICE = re.compile(r"invalid choice: '(?P<name>[^']+)' \(choose from (?P<choices>[^)]+)\)")
_NO_FILE = re.compile(r"File does not exist: '?(?P<path>[^']+)'?")
_WHOLE = re.compile(r"(\w+\.)?(backbone|model|data)")
_REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")


_HOMES = ("attacks", "callbacks", "data", "evaluation", "losses", "models", "module")


def explain(message: str, parser: argparse.ArgumentParser) -> str:
    """Return the parser's message without the alternatives it tried, and with the names that come nearest.

    Args:
        message: What the parser says, possibly nested over many lines.
        parser: The parser, whose keys are the candidates for a mistyped one.
    """
    keys: list[str] = []
    owner = ""
    reasons: list[str] = []
    for line in (raw.strip().removeprefix("- ").strip() for raw in message.splitlines()):
        if key := _KEY.match(line):
            keys.append(key["key"])
            line = key["rest"]
        if found := _CLASS.match(line):
            owner = found["path"]
        elif line and not _NOISE.match(line):
            reason = _reason(line, owner, parser)
            if reason not in reasons:
                reasons.append(reason)
    if any(_NO_CLASS.search(line) for line in message.splitlines()):
        reasons = [reason for reason in reasons if not reason.startswith("Given value: ")]
    where = f"{'.'.join(keys)}: " if keys else ""
    return f"error: {where}{'; '.join(reasons) or message}\n(--help lists every key, --print_config shows them set)"


def _reason(line: str, owner: str, parser: argparse.ArgumentParser) -> str:
    if found := _OPTION.search(line):
        module, _, name = owner.rpartition(".")
        arguments = arguments_of(getattr(importlib.import_module(module), name))
        return (
            f"{owner.rsplit('.', 1)[-1]} takes no argument {found['name']!r}{_nearest(found['name'], arguments)}. "
            + (f"It takes {', '.join(arguments)}" if arguments else "Give a class_path, and init_args below it")
        )
    if found := _NO_CLASS.search(line):
        known = list(_classes())
        if found["name"] in known:
            return f"{found['name']} is no class of the kind that is wanted here"
        near = _nearest(found["name"], known)
        return f"there is no class {found['name']}{near}; a class of your own is named by its dotted path"
    if found := _UNKNOWN.search(line):
        name = (found["name"] or found["nested"]).lstrip("-").partition("=")[0]
        return f"there is no key {name!r}{_nearest_key(name, _known_keys(parser))}"
    if found := _CHOICE.search(line):
        choices = re.findall(r"'([^']+)'", found["choices"])
        return f"there is no {found['name']!r}{_nearest(found['name'], choices)}; there are {', '.join(choices)}"
    if found := _REQUIRED.search(line):
        hint = "; name a configuration, as in --config configs/digits.yaml, or a checkpoint, as in --ckpt_path PATH"
        hint = hint if _WHOLE.fullmatch(found["names"]) else ""
        return f"{found['names']} is not given{hint}"
    if found := _NO_FILE.search(line):
        path = Path(found["path"])
        siblings = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        return f"there is no file {found['path']}{_nearest(path.name, siblings)}"
    return line


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _nearest_key(name: str, known: list[str]) -> str:
    """Compare as much of the key as each known one is long: what follows belongs to a class."""
    heads = {key: ".".join(name.split(".")[: key.count(".") + 1]) for key in known}
    near = [key for key, head in heads.items() if difflib.get_close_matches(head, [key], cutoff=0.8)]
    near.sort(key=lambda key: -difflib.SequenceMatcher(None, heads[key], key).ratio())
    return f" (did you mean {' or '.join(near[:3])}?)" if near else ""


def _known_keys(parser: argparse.ArgumentParser) -> list[str]:
    keys: dict[str, None] = {}
    for action in parser._actions:
        if isinstance(action.choices, dict):
            keys.update({key: None for command in action.choices.values() for key in _known_keys(command)})
        keys.update({option.lstrip("-").removesuffix("+"): None for option in action.option_strings})
    keys = {key: None for key in keys if len(key) > 1 and not key.endswith(".help")}
    groups = {".".join(key.split(".")[:depth]) for key in keys for depth in range(1, key.count(".") + 1)}
    return [key for key in keys if key not in groups]


def arguments_of(kind: type) -> list[str]:
    """Return the names of a class's arguments, those that it passes on to its base classes included."""
    seen: dict[str, None] = {}
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        seen.update({p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)})
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in seen if name != "self"]


def _classes() -> list[str]:
    names: list[str] = []
    for package in _HOMES:
        module = importlib.import_module(f"adv_lightning.{package}")
        names += [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
    return names
