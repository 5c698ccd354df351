"""The parser of the commands: reads class paths of before a move, and explains errors in a few lines."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

import adv_lightning
from adv_lightning.attacks.description import class_path
from adv_lightning.methods.moved_paths import MOVED

# jsonargparse lists every alternative that it tried. These lines do not say what is wrong.
_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: |Errors:|Expected a <class 'NoneType'>"
    r"|Expected a path but .* either not accessible or invalid|Given value type: "
    r"|Given value: (Namespace|NestedArg|\{|\[)"
)
_KEY = re.compile(r'Parser key "(?P<key>[^"]+)": ?(?P<rest>.*)')
_CLASS = re.compile(r"Problem with given class_path '(?P<path>[^']+)':")
_OPTION = re.compile(r"Option '(?P<name>[^']+)' is not accepted")
_GIVEN = re.compile(r"Got value: Namespace\(class_path='(?P<path>[^']+)'")
_NO_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<name>\S+)|does not accept option '(?P<nested>[^']+)'")
_CHOICE = re.compile(r"invalid choice: '(?P<name>[^']+)' \(choose from (?P<choices>[^)]+)\)")
_NO_FILE = re.compile(r"File does not exist: '?(?P<path>[^']+)'?")
_REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")

_WHOLE = re.compile(r"(\w+\.)?(backbone|model|data)")
_OWN_CLASS = re.compile(r"\badv_lightning(?:\.\w+)+")
_PUBLIC = ("attacks", "callbacks", "data", "evaluation", "losses", "models", "module")
_MODE = "adv_lightning"


def today(text: str) -> str:
    """Return a command line's word, or the text of a configuration, with public class paths.

    Those of before files moved are replaced too.
    """
    return _OWN_CLASS.sub(lambda found: _public_path(found[0]), text)


def _public_path(path: str) -> str:
    module, _, name = path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    return class_path(kind) if inspect.isclass(kind) else MOVED.get(path, path)


def _load(text: str) -> Any:
    return get_loader("yaml")(today(text))


set_loader(_MODE, _load, exceptions=(yaml.YAMLError,))


class ArgumentParser(LightningArgumentParser):
    """Lightning's parser, which also reads class paths of before a move, and says errors in a few lines.

    Args:
        command: The command whose arguments it takes. None: of no command, or of several.
        **kwargs: As for Lightning's LightningArgumentParser.
    """

    def __init__(self, *args: Any, command: str | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("parser_mode", _MODE)
        kwargs.setdefault("allow_abbrev", False)  # a mistyped key must not be taken for another
        super().__init__(*args, **kwargs)
        self.command = command
        self.commands: Mapping[str, ArgumentParser] = {}
        """The parsers of the commands, if this one has some."""

    def parse_args(self, args: Sequence[str] | None = None, *further: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        words = sys.argv[1:] if args is None else args
        return super().parse_args([today(word) for word in words], *further, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        if not self.exit_on_error:
            return super().error(message, ex)
        sys.stderr.write(explain(message, self) + "\n")
        raise SystemExit(2)


def is_ours(error: BaseException) -> bool:
    """Whether this package raised the error, or the one that caused it, on purpose. Others need their traceback."""
    link: BaseException | None = error
    while link is not None:
        frames = traceback.extract_tb(link.__traceback__)
        if frames and Path(frames[-1].filename).is_relative_to(Path(adv_lightning.__file__).parent):
            return True
        link = link.__cause__
    return False


def explain(message: str, parser: ArgumentParser) -> str:
    """Return a parser's message without the alternatives that it tried, and with the nearest valid names.

    Args:
        message: The parser's message, possibly nested over many lines.
        parser: The parser. Its keys are the candidates for a mistyped one.
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
            reason = _reason(line, owner, parser, keys)
            if reason not in reasons:
                reasons.append(reason)
    if any(_NO_CLASS.search(line) for line in message.splitlines()):
        reasons = [reason for reason in reasons if not reason.startswith("Given value: ")]
    where = f"{'.'.join(keys)}: " if keys else ""
    return f"error: {where}{'; '.join(reasons) or message}\n(--help lists all keys, --print_config shows their values)"


def _reason(line: str, owner: str, parser: ArgumentParser, keys: Sequence[str]) -> str:
    if found := _OPTION.search(line):
        factory = _GIVEN.search(line)  # of an optimizer or a schedule, which are built later
        owner = factory["path"] if factory else owner
        module, _, name = owner.rpartition(".")
        arguments = [each for each in arguments_of(getattr(importlib.import_module(module), name)) if each != "params"]
        return (
            f"{owner.rsplit('.', 1)[-1]} does not accept the argument {found['name']!r}"
            f"{_nearest(found['name'], arguments)}. "
            + (f"It accepts {', '.join(arguments)}" if arguments else "Give a class_path, and init_args below it")
        )
    if found := _NO_CLASS.search(line):
        known = list(_classes())
        if found["name"] in known:
            return (
                f"{found['name']} is not of the class that this key takes. In a class of your own, annotate the "
                "argument with its class"
            )
        near = _nearest(found["name"], known)
        return f"there is no class {found['name']}{near}. Give a class of your own by its import path, as in mypkg.Net"
    if found := _UNKNOWN.search(line):
        name = (found["name"] or found["nested"]).lstrip("-").partition("=")[0]
        whole = name if name.startswith(tuple(keys)) else ".".join([*keys, name])
        near = _nearest_key(whole, _known_keys(parser))
        own = (
            ". A callback of your own goes to --trainer.callbacks+=mypkg.Name" if name.startswith("callbacks.") else ""
        )
        return f"there is no key {whole!r}{near}{own}"
    if found := _CHOICE.search(line):
        choices = re.findall(r"'([^']+)'", found["choices"])
        return f"there is no {found['name']!r}{_nearest(found['name'], choices)}. Choose from {', '.join(choices)}"
    if found := _REQUIRED.search(line):
        hint = ". Give a configuration, as in --config configs/digits.yaml, or a checkpoint, as in --ckpt_path PATH"
        hint = hint if _WHOLE.fullmatch(found["names"]) else ""
        return f"{found['names']} is missing{hint}"
    if found := _NO_FILE.search(line):
        path = Path(found["path"])
        siblings = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        return f"there is no file {found['path']}{_nearest(path.name, siblings)}"
    return line


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
            module, _, name = value.rpartition(".")
            place = key.removesuffix("class_path")
            known |= {place + each: None for each in arguments_of(getattr(importlib.import_module(module), name))}
    return list(known)


def arguments_of(kind: type) -> list[str]:
    """Return the names of a class's arguments, with those that it passes on to its base classes."""
    seen: dict[str, None] = {}
    for base in kind.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        seen.update({p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)})
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in seen if name != "self"]


def _classes() -> list[str]:
    names: list[str] = []
    for package in _PUBLIC:
        module = importlib.import_module(f"adv_lightning.{package}")
        names += [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
    return names
