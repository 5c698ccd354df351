"""The commands of `python -m adv_lightning`, listed once, for the help and for finding the function that runs each.

A new command is a line here and a file beside this one. Imports no torch, so that the help is fast.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command.

    Args:
        name: First word of the command line.
        help: What it does.
        example: How it is called.
        run: "module:function" that takes the words after the command's name. Empty: a command of Lightning's CLI.
    """

    name: str
    help: str
    example: str
    run: str = ""

    def load(self) -> Callable[[list[str]], Any] | None:
        """Import and return the function that runs the command; None for a command of Lightning's CLI."""
        if not self.run:
            return None
        module, _, function = self.run.partition(":")
        found: Callable[[list[str]], Any] = getattr(importlib.import_module(module), function)
        return found


COMMANDS = {
    command.name: command
    for command in (
        Command("fit", "train; --ckpt_path last continues a stopped run", "fit --config configs/digits.yaml"),
        Command("validate", "evaluate on the validation set", "validate --ckpt_path PATH"),
        Command("test", "evaluate on the test set", "test --ckpt_path PATH"),
        Command("predict", "write the probabilities of the test set", "predict --ckpt_path PATH"),
        Command(
            "refit",
            "train from scratch on all training data, for as many epochs as a finished run found best",
            "refit --run lightning_logs/version_0",
            "adv_lightning.cli.refit:refit",
        ),
        Command(
            "compare",
            "evaluate networks under each other's adversarial examples",
            "compare --checkpoints [a.ckpt,b.ckpt]",
            "adv_lightning.cli.compare:compare",
        ),
    )
}

_ELSEWHERE = {"train": "fit", "run": "fit", "eval": "test", "evaluate": "test", "val": "validate", "infer": "predict"}
"""Words that other command lines use."""

_USAGE = "usage: python -m adv_lightning COMMAND [--config FILE ...] [--KEY VALUE ...]"
_NOTES = """\
Several --config files are merged, the later ones win. The command line wins over files, and files win over the
settings stored in a checkpoint.

  COMMAND --help                        all keys of a command (imports torch: takes seconds)
  COMMAND --model.backbone.help CLASS   the arguments of a class
  COMMAND --config ... --print_config   the whole configuration, without running it
  --version                             the version
"""


def help_text() -> str:
    """Return the help of all commands."""
    lines = [_USAGE, "", "Adversarial training and honest evaluation of classifiers with PyTorch Lightning."]
    lines += ["", "commands:"]
    for command in COMMANDS.values():
        lines += [f"  {command.name:<9} {command.help}", f"  {'':<9}   {command.example}"]
    return "\n".join([*lines, "", _NOTES])


def unknown(word: str) -> str:
    """Return an error for a word that is not a command."""
    near = difflib.get_close_matches(word, COMMANDS, n=3, cutoff=0.6)
    near = [_ELSEWHERE[word]] if word in _ELSEWHERE else near
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"error: there is no command {word!r}{hint}; the commands are {', '.join(COMMANDS)}"
