"""The parser of the commands: reads class paths of before a move, and takes a function in the place of a class."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser, LRSchedulerCallable
from torch.optim.lr_scheduler import LRScheduler

from adv_lightning.attacks.description import class_path
from adv_lightning.cli.error_messages import explain
from adv_lightning.methods.moved_paths import MOVED
from adv_lightning.methods.optimizers import NESTED
from adv_lightning.tensor_arguments import register

_OWN_CLASS = re.compile(r"\badv_lightning(?:\.\w+)+")
_MODE = "adv_lightning"
_TAKEN_AS_KWARGS = {"timm.create_model": ("num_classes", "in_chans"), "torchvision.get_model": ("num_classes",)}


def today(text: str) -> str:
    """Return a command line's word, or the text of a configuration, with public class paths.

    Those of before files moved are replaced too.
    """
    return _OWN_CLASS.sub(lambda found: _public_path(found[0]), text)


def _public_path(path: str) -> str:
    module, _, name = path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    return class_path(kind) if inspect.isclass(kind) else MOVED.get(path, path)


def taken_as_kwargs(factory: Any) -> tuple[str, ...]:
    """Return the names of what a function takes from the data as `**kwargs`, which jsonargparse cannot see."""
    package = getattr(factory, "__module__", "").partition(".")[0]
    return _TAKEN_AS_KWARGS.get(f"{package}.{getattr(factory, '__name__', '')}", ())


def _load(text: str) -> Any:
    return get_loader("yaml")(today(text))


register()
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
        self.lacking: str | None = None
        """What is said if no network is given."""
        self.commands: Mapping[str, ArgumentParser] = {}
        """The parsers of the commands, if this one has some."""

    def add_class_arguments(self, theclass: type, nested_key: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Add the arguments of a class. Schedulers inside one are factories, which get its optimizer."""
        if inspect.isclass(theclass) and issubclass(theclass, LRScheduler):
            skipped = kwargs.get("skip") or set()
            if NESTED in inspect.signature(theclass).parameters and NESTED not in skipped:
                kwargs["skip"] = {*skipped, NESTED}
                place = f"--{NESTED}" if nested_key is None else f"--{nested_key}.{NESTED}"
                self.add_argument(place, type=list[LRSchedulerCallable], required=True)
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def add_function_arguments(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Add the arguments of a function in the place of a class, with what it takes from the data as `**kwargs`."""
        kwargs.pop("linked_targets", None)  # jsonargparse passes them to any parser, but only classes take them
        added = super().add_function_arguments(function, *args, **kwargs)
        for name in taken_as_kwargs(function):
            if name not in added:
                self.add_argument(f"--{name}", type=int | None, default=None)
                added.append(name)
        return added

    @classmethod
    def arguments_of(cls, factory: Callable[..., Any]) -> list[str]:
        """Return the names of the arguments of a class or function, with those that it passes on."""
        if not inspect.isclass(factory):
            return list(cls(exit_on_error=False).add_function_arguments(factory, fail_untyped=False))
        seen: dict[str, None] = {}
        for base in factory.__mro__:
            parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
            seen.update({p.name: None for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)})
            if all(p.kind != p.VAR_KEYWORD for p in parameters):
                break
        return [name for name in seen if name != "self"]

    def parse_args(self, args: Sequence[str] | None = None, *further: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        words = sys.argv[1:] if args is None else args
        return super().parse_args([today(word) for word in words], *further, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        if not self.exit_on_error:
            return super().error(message, ex)
        sys.stderr.write(explain(message, self) + "\n")
        raise SystemExit(2)
