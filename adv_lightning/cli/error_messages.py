"""Errors of the command line, explained in a few lines."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import adv_lightning
from adv_lightning.attacks.plain_values import imported

if TYPE_CHECKING:
    from adv_lightning.cli.parser import ArgumentParser

# jsonargparse lists every alternative that it tried. These lines do not say what is wrong.
_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: |Errors:|Expected a <class 'NoneType'>"
    r"|Expected a path but .* either not accessible or invalid|Given value type: "
    r"|Given value: (Namespace|NestedArg|\{|\[)|Import path does not correspond to a subclass of "
    r"|Type \S.* Expected '\S+' to be a subclass of "
)
_CALLABLE = re.compile(r"Type \S.* expects a function or a callable class: ")
_NOT_KIND = re.compile(
    r"Import path (?P<path>\S+) does not correspond to a subclass of (?P<kind>\w+)"
    r"|Expected '(?P<function>\S+)' to be a function that returns <class '(?P<result>\w+)'>"
)
_DUMP = re.compile(r"\.*\s*Got value: Namespace\(.*")
_KIND = re.compile(r"does not correspond to a subclass of \w+")
_VALUE = re.compile(r"Given value: (?P<path>[\w.]+)$", re.MULTILINE)
_NO_MODULE = re.compile(r"No module named '(?P<module>\S+)'")
_NO_NAME = re.compile(r"module '(?P<module>\S+)' has no attribute '(?P<name>\w+)'")
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)": ?(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)':")
_OPTION = re.compile(r"Option '(?P<name>[^']+)' is not accepted")
_GIVEN = re.compile(r"Got value: Namespace\(class_path='(?P<path>[^']+)'")
_NO_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<name>\S+)|does not accept option '(?P<nested>[^']+)'")
_CHOICE = re.compile(r"invalid choice: '(?P<name>[^']+)' \(choose from (?P<choices>[^)]+)\)")
_LITERAL = re.compile(r"Expected a typing.Literal.(?P<choices>[^\]]+)\]")
_NO_FILE = re.compile(r"File does not exist: '?(?P<path>[^']+)'?")
_REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")

_ONE_OF = "give one of "
_WHOLE = re.compile(r"(\w+\.)?(backbone|model|data)")
_PUBLIC = ("attacks", "callbacks", "data", "evaluation", "losses", "models", "module")


def is_ours(error: BaseException) -> bool:
    """Whether this package raised the error, or the one that caused it, on purpose. Others need their traceback."""
    link: BaseException | None = error
    while link is not None:
        frames = traceback.extract_tb(link.__traceback__)
        if frames and Path(frames[-1].filename).is_relative_to(Path(adv_lightning.__file__).parent):
            return True
        link = link.__cause__
    return False


def origin(error: Exception) -> Exception:
    """Return what was raised in a class or function that jsonargparse has called, without what it says around it."""
    while isinstance(error.__cause__, Exception) and (frames := traceback.extract_tb(error.__traceback__)):
        if Path(frames[-1].filename).parent.name != "jsonargparse":
            break
        error = error.__cause__
    return error


def explain(message: str, parser: ArgumentParser) -> str:
    """Return a parser's message without the alternatives that it tried, and with the nearest valid names.

    Args:
        message: The parser's message, possibly nested over many lines.
        parser: The parser. Its keys are the candidates for a mistyped one.
    """
    keys: list[str] = []
    owner = ""
    reasons: list[str] = []
    for raw in (each.strip().removeprefix("- ").strip() for each in message.splitlines()):
        line = _CALLABLE.sub("", raw)
        if key := _KEY.match(line):
            if line == raw or keys[-1:] != [key["key"]]:
                keys.append(key["key"])
            line = key["rest"]
        if found := _CLASS.match(line):
            owner = found["path"]
        elif line and not _NOISE.match(line):
            reason = _reason(line, owner, parser, keys)
            if reason not in reasons:
                reasons.append(reason)
    said = [reason for reason in reasons if not reason.startswith("Given value: ")]
    kind, value = _KIND.search(message), _VALUE.search(message)
    if not said and kind and value:  # jsonargparse has left the path out
        reasons = said = [_reason(f"Import path {value['path']} {kind[0]}", owner, parser, keys)]
    if any(pattern.search(message) for pattern in (_NO_CLASS, _NOT_KIND, _NO_NAME, _LITERAL)):
        reasons = said
    # An argument is said to be of no class of a union that another one accepts.
    reasons = [reason for reason in reasons if " is no " not in reason] or reasons
    choices = [reason for reason in reasons if reason.startswith(_ONE_OF)]
    if len(choices) > 1:  # of one key, which takes words and numbers
        words = ", ".join(each.removeprefix(_ONE_OF) for each in choices).split(", ")
        reasons = [_ONE_OF + ", ".join(dict.fromkeys(words))]
    where = f"{'.'.join(keys)}: " if keys else ""
    return f"error: {where}{'; '.join(reasons) or message}\n(--help lists all keys, --print_config shows their values)"


def _reason(line: str, owner: str, parser: ArgumentParser, keys: Sequence[str]) -> str:
    if found := _OPTION.search(line):
        factory = _GIVEN.search(line)  # of an optimizer or a schedule, which are built later
        owner = factory["path"] if factory else owner
        arguments = [each for each in parser.arguments_of(imported(owner)) if each != "params"]
        if not arguments:
            return f"no class takes the argument {found['name']!r} yet. Give a class_path, and init_args below it"
        return (
            f"{owner.rsplit('.', 1)[-1]} does not accept the argument {found['name']!r}"
            f"{_nearest(found['name'], arguments)}. It accepts {', '.join(arguments)}"
        )
    if found := _NOT_KIND.search(line):
        path, kind = found["path"] or found["function"], found["kind"] or found["result"]
        name = path.rpartition(".")[2]
        if inspect.isclass(imported(path)):
            return f"{path} is no {kind}"
        of_torch = {"Module": "torch.nn.Module", "Tensor": "torch.Tensor"}.get(kind, kind)
        return f"{path} does not say that it returns a {kind}. Annotate it: def {name}(...) -> {of_torch}"
    if found := _NO_MODULE.match(line):
        return f"there is no module {found['module']}. Install it, or run the command in the folder that has it"
    if found := _NO_NAME.match(line):
        near = _nearest(found["name"], vars(sys.modules[found["module"]]) if found["module"] in sys.modules else ())
        return f"there is no {found['name']} in the module {found['module']}{near}"
    if found := _NO_CLASS.search(line):
        if found["name"] in _networks() and keys[-1:] == ["model"]:
            return f"{found['name']} is a network. Give it as --model.backbone={found['name']}"
        known = list(_classes())
        if found["name"] in known:
            return (
                f"{found['name']} is not of the class that this key takes. In a class of your own, annotate the "
                "argument with its class"
            )
        near = _nearest(found["name"], [*known, *_of_torch(keys)])
        return f"there is no class {found['name']}{near}. Give a class of your own by its import path, as in mypkg.Net"
    if found := _UNKNOWN.search(line):
        name = (found["name"] or found["nested"]).lstrip("-").partition("=")[0]
        whole = name if name.startswith(tuple(keys)) else ".".join([*keys, name])
        near = _nearest_key(whole, _known_keys(parser))
        own = (
            ". A callback of your own goes to --trainer.callbacks+=mypkg.Name" if name.startswith("callbacks.") else ""
        )
        return f"there is no key {whole!r}{near}{own}"
    if found := _LITERAL.search(line):
        return _ONE_OF + found["choices"].replace("'", "")
    if found := _CHOICE.search(line):
        choices = re.findall(r"'([^']+)'", found["choices"])
        return f"there is no {found['name']!r}{_nearest(found['name'], choices)}. Choose from {', '.join(choices)}"
    if found := _REQUIRED.search(line):
        if parser.lacking and _WHOLE.fullmatch(found["names"]):
            return parser.lacking
        hint = ". Give a configuration, as in --config configs/digits.yaml, or a checkpoint, as in --ckpt_path PATH"
        hint = hint if _WHOLE.fullmatch(found["names"]) else ""
        return f"{found['names']} is missing{hint}"
    if found := _NO_FILE.search(line):
        path = Path(found["path"])
        siblings = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        return f"there is no file {found['path']}{_nearest(path.name, siblings)}"
    return _DUMP.sub("", line)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _nearest_key(name: str, known: list[str]) -> str:
    """Compare only as many parts of the key as each known key has: the rest belongs to a class."""
    heads = {key: ".".join(name.split(".")[: key.count(".") + 1]) for key in known}
    near = [key for key, head in heads.items() if head != key and difflib.get_close_matches(head, [key], cutoff=0.8)]
    near.sort(key=lambda key: -difflib.SequenceMatcher(None, heads[key], key).ratio())
    return f" (did you mean {' or '.join(near[:3])}?)" if near else ""


def _known_keys(parser: ArgumentParser) -> list[str]:
    defaults = [each.get_defaults(skip_validation=True) for each in (parser, *parser.commands.values())]
    items = [item for found in defaults for item in found.items()]
    # A class has keys of its own below its key, which depend on the class.
    known = dict.fromkeys(re.split(r"\.(?:class_path|init_args)\b", key)[0] for key, _ in items)
    for key, value in items:
        if key.endswith(".class_path"):
            place = key.removesuffix("class_path")
            known |= {place + each: None for each in parser.arguments_of(imported(value))}
    return list(known)


def _classes() -> list[str]:
    names: list[str] = []
    for package in _PUBLIC:
        module = importlib.import_module(f"adv_lightning.{package}")
        names += [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
    return list(dict.fromkeys(names))


def _networks() -> list[str]:
    models = importlib.import_module("adv_lightning.models")
    return [name for name, value in vars(models).items() if inspect.isclass(value)]


def _of_torch(keys: Sequence[str]) -> list[str]:
    """Return the names of torch's classes that a key takes."""
    module = {"optimizer": "torch.optim", "lr_scheduler": "torch.optim.lr_scheduler"}.get(keys[-1] if keys else "")
    return [] if module is None else [n for n, v in vars(importlib.import_module(module)).items() if inspect.isclass(v)]
