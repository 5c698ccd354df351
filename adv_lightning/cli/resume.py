"""The checkpoint that "last" or "best" means, read off the command line before it is parsed."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_info

from adv_lightning.callbacks.monitor_key import CHOICE
from adv_lightning.callbacks.stored_paths import is_of_run, run_mark
from adv_lightning.cli.runs import CONFIG, LOCK, LOGS
from adv_lightning.methods.checkpoint_format import DATA, MODEL, read_checkpoint
from adv_lightning.methods.stored_classes import check_classes

_KNOWN_LOGGERS = ("CSVLogger", "TensorBoardLogger")
"""Loggers that make folders as the default one does."""


def resolved(words: list[str], commands: Container[str]) -> tuple[list[str], Path | None]:
    """Replace the word "last" or "best" after --ckpt_path by that checkpoint of the newest run.

    `fit --ckpt_path=last` continues in the run's folder, with the run's settings below those that are given. It starts
    a new run if there is none yet, or the newest one has no checkpoint.

    Args:
        words: A command line.
        commands: Commands that take a checkpoint.

    Returns:
        The command line, and the folder of the run that continues. None: a new run.

    Raises:
        ValueError: the newest run does not have that checkpoint, or the logger is one whose folders are unknown.
    """
    word, command = value_of(words, "ckpt_path"), next(iter(words), "")
    if word not in ("best", "last") or command not in commands:
        return words, None
    logger = _class_named(words, "trainer.logger")
    if logger is not None and logger.rpartition(".")[2] not in _KNOWN_LOGGERS:
        raise ValueError(f"--ckpt_path={word}: the folders of {logger} are unknown. Give the checkpoint's path")
    saved = None if logger is None else _argument(words, "trainer.logger", "save_dir")
    logs = Path(saved or value_of(words, "trainer.default_root_dir") or ".", LOGS)
    run = _newest_run(logs)
    settings = [] if run is None or not (run / CONFIG).is_file() else [f"--config={run / CONFIG}"]
    dirpath = _argument([*settings, *words], "callbacks.checkpoint", "dirpath")
    folder = Path(dirpath) if dirpath else (run or logs) / "checkpoints"
    # A folder that is given may hold the checkpoints of several runs.
    path = _newest_file(folder, word, run_mark(run, folder) if dirpath and run else None)
    resuming = command == "fit" and word == "last"
    if path is None and resuming:
        # Not an error, so that one command starts a job and continues it.
        rank_zero_info(f"--ckpt_path=last: there is no {folder / 'last.ckpt'}, so a new run starts.")
        return [*words, "--ckpt_path=null"], None
    if path is None:
        raise ValueError(
            f"--ckpt_path={word}: the newest run has no {folder / word}.ckpt. Give the folder that holds {LOGS} with "
            "--trainer.default_root_dir, or the checkpoint's path"
        )
    rank_zero_info(f"--ckpt_path={word} is {path}")
    words = [*words, f"--ckpt_path={path}"]
    if not resuming:
        return words, None
    # A logger of the user's own makes a new folder.
    return [command, *settings, *words[1:]], None if logger else run


def newest(root: str | Path, name: str) -> Path | None:
    """Return the checkpoint `name`, "best" or "last", of the run below `root` that was started last, if it has one."""
    run = _newest_run(Path(root, LOGS))
    return None if run is None else _newest_file(run / "checkpoints", name)


def named_checkpoint(path: Path) -> dict[str, Any]:
    """Return what the checkpoint at a path holds.

    Raises:
        ValueError: there is no such file, it is not a checkpoint, or it names a class that is not built from a file.
    """
    if path.is_dir():
        inside = next(iter(sorted(path.rglob("*.ckpt"))), None)
        hint = "" if inside is None else f", such as {inside}"
        raise ValueError(f"{path} is a folder. Give a checkpoint{hint}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    checkpoint = read_checkpoint(path)
    check_classes([checkpoint.get(MODEL), checkpoint.get(DATA)], path)
    return checkpoint


@contextmanager
def named_in_errors(path: Path, parser: ArgumentParser) -> Iterator[None]:
    """Let a parser name the checkpoint whose class paths lead to no class, or to a module that cannot be imported."""
    try:
        yield
    except Exception as error:  # a module may raise anything
        reason = " ".join(str(error).split())
        parser.error(f"--ckpt_path={path} names a class that cannot be found: {type(error).__name__}: {reason}")


def value_of(words: Sequence[str], key: str) -> Any:
    """Return the value of a key in a command line, or else in the configuration files that it names."""
    value = _option(words, f"--{key}")
    files = [word for flag, word in pairwise(words) if flag in ("--config", "-c")]
    files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    for file in files if value is None else ():
        if Path(file).is_file():
            with suppress(yaml.YAMLError):  # the parser will report it
                content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
                for part in key.split("."):
                    content = content.get(part) if isinstance(content, dict) else None
                value = value if content is None else content
    return value


def is_given(words: Sequence[Any], argument: str) -> bool:
    """Whether a command line, or a file that it names, gives an argument of the model, or a part of it."""
    keys = (f"model.{argument}", f"model.init_args.{argument}")
    parts = tuple(f"--{key}." for key in keys)
    return any(value_of(words, key) is not None for key in keys) or any(str(word).startswith(parts) for word in words)


def other_split(data: Any, trained: dict[str, Any] | None) -> str:
    """Return the settings of the split of a data module that are others than in training; "" if none are known.

    Args:
        data: Settings of a data module, as a parser has them.
        trained: Its description in a checkpoint. None: unknown.
    """
    arguments = getattr(data, "init_args", None)
    if (
        not trained
        or arguments is None
        or data.class_path.rpartition(".")[2] != trained["class_path"].rpartition(".")[2]
    ):
        return ""
    then, now = trained["init_args"], arguments.as_dict()
    return ", ".join(f"{name}={now[name]}" for name in CHOICE if name in now and now[name] != then.get(name, now[name]))


def _option(words: Sequence[str], name: str) -> str | None:
    """Return the last value of the option `name` in a command line."""
    value = None
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            value = words[i + 1]
        elif isinstance(word, str) and word.startswith(f"{name}="):
            value = word.partition("=")[2]
    return value


def _class_named(words: Sequence[str], key: str) -> str | None:
    """Return the class that is given for a key; None if there is none."""
    value = value_of(words, key)
    value = value.get("class_path") if isinstance(value, dict) else value
    return None if str(value).lower() in ("none", "null", "true", "false") else str(value)


def _argument(words: Sequence[str], key: str, argument: str) -> str | None:
    """Return an argument of the class at a key, in the short form or the long one."""
    value = value_of(words, f"{key}.{argument}") or value_of(words, f"{key}.init_args.{argument}")
    return None if value in (None, "null") else str(value)


def _newest_file(folder: Path, word: str, mark: str | None = None) -> Path | None:
    """Return the last or the best checkpoint in a folder. With several kept, the newest says which one was best.

    Args:
        folder: Where the checkpoints are.
        word: "best" or "last".
        mark: Of the run that wrote it; see `run_mark`. None: any.
    """
    by_age = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    own = by_age if mark is None else [path for path in by_age if is_of_run(path, {mark})]
    newest = next(iter(own), None)
    if word == "best" and newest is not None and sum(path.name.startswith("best") for path in own) > 1:
        with suppress(ValueError):  # another file of that name, or a damaged one
            states = read_checkpoint(newest).get("callbacks", {}).values()
            named = [state.get("best_model_path") for state in states if isinstance(state, dict)]
            found = [folder / Path(path).name for path in named if isinstance(path, str) and path]
            if found and found[0].is_file() and found[0].name.startswith("best"):
                return found[0]
    return next((path for path in own if path.name.startswith(word)), None)


def _newest_run(logs: Path) -> Path | None:
    """Return the folder of the training run that was started last."""
    started = [run for run in logs.glob("version_*") if (run / LOCK).exists() or (run / "checkpoints").is_dir()]
    numbered = [run for run in started if run.name.partition("_")[2].isdigit()]
    return max(numbered, key=lambda run: int(run.name.partition("_")[2]), default=None)
