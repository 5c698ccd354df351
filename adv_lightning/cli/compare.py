"""The command that compares networks under each other's adversarial examples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_warn

from adv_lightning.attacks import Attack
from adv_lightning.cli.defaults import default_bar, default_logger
from adv_lightning.cli.error_messages import is_ours
from adv_lightning.cli.parser import ArgumentParser
from adv_lightning.evaluation.comparison import Comparison
from adv_lightning.evaluation.from_checkpoint import names_of
from adv_lightning.evaluation.transfer_matrix import check_names
from adv_lightning.methods.checkpoint_format import DATA, MODEL, described, read_checkpoint, trained_with
from adv_lightning.methods.stored_classes import check_classes

_DESCRIPTION = """\
Evaluate networks under each other's adversarial examples: error, confidence on mistakes, and how often two networks
make the same mistake. Prints tables, and writes metrics.json, with everything that the figures depend on, and two plots
to the run's folder. Example: compare --checkpoints [a.ckpt,b.ckpt] --names [plain,trained] --attack=FGSM
--attack.eps=0.25 --data.root=DIR
"""


def compare(words: Sequence[str]) -> Comparison:
    """Run the command line after `compare`, and return the comparison with its figures.

    Raises:
        SystemExit: an argument is wrong; the reason is printed, status 2.
        FileNotFoundError: a file is missing.
        ValueError: a class refuses an argument, or the networks cannot be compared.
    """
    parser = _parser()
    data = _remember(words, parser)
    config = parser.parse_args(list(words))
    names = check_names(names_of(config.checkpoints, config.names))
    for key, example in (("data", "MNISTDataModule --data.root=DIR"), ("attack", "FGSM --attack.eps=0.25")):
        if config.get(key) is None:
            parser.error(f"the first checkpoint has no {key}. Give one, as in --{key}={example}")
    seed_everything(config.seed_everything)
    try:
        init = parser.instantiate(config)
    except (ValueError, TypeError, ImportError) as error:
        if not is_ours(error):
            raise
        parser.error(str(error), error)
    comparison = Comparison.of_checkpoints(config.checkpoints, init.attack, names, config.max_samples)
    shape = getattr(init.data, "input_shape", None)
    if shape is not None:
        comparison.check(torch.zeros(1, *shape), getattr(init.data, "num_classes", None))
    here = _kind(config.data.as_dict())
    other = [f"{n} on {_kind(d)}" for n, d in zip(names, data, strict=True) if _kind(d) not in (None, here)]
    comparison.warned_of = {n for n, d in zip(names, data, strict=True) if _kind(d) not in (None, here)}
    if other:
        rank_zero_warn(f"evaluated on {here}, but trained on other data: {', '.join(other)}")
    trainer = _trainer(init.trainer.as_dict(), SaveConfigCallback(parser, config))
    trainer.test(comparison, datamodule=init.data, verbose=False)
    return comparison


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        usage="python -m adv_lightning compare --checkpoints [A.ckpt,B.ckpt,...] [--config FILE ...] [--KEY VALUE ...]",
        description=_DESCRIPTION,
    )
    parser.add_argument("-c", "--config", action="config", help="Configuration file; several compose.")
    parser.add_argument(
        "--checkpoints",
        type=list[str],
        default=[],
        help="At least two checkpoints that the command line made, as in [a.ckpt,b.ckpt]; an ensemble is one network.",
    )
    parser.add_argument(
        "--names",
        type=list[str] | None,
        default=None,
        help="A name for each network, as in [plain,trained]. Null: the parts of the paths that differ.",
    )
    parser.add_argument(
        "--max_samples", type=int | None, default=None, help="Use only the first examples of the test set, this many."
    )
    parser.add_argument("--seed_everything", type=int, default=0, help="Seed of random attacks and data.")
    parser.add_subclass_arguments(
        Attack,
        "attack",
        required=False,
        help="Attack that crafts the examples. Default: the first checkpoint's val_attack, or else its attack.",
    )
    parser.add_subclass_arguments(
        LightningDataModule,
        "data",
        fail_untyped=False,
        required=False,
        help="Data whose test part is used. Default: the data of the first checkpoint's training.",
    )
    parser.add_lightning_class_args(Trainer, "trainer")
    return parser


def _remember(words: Sequence[str], parser: ArgumentParser) -> list[dict[str, Any] | None]:
    """Make the first checkpoint's data and attack the defaults, and return the data that each was trained with."""
    paths = _checkpoints(words)
    try:
        found = [read_checkpoint(path) for path in paths]
        for path, checkpoint in zip(paths, found, strict=True):
            check_classes([checkpoint.get(MODEL), checkpoint.get(DATA)], path)
    except (FileNotFoundError, ValueError) as error:
        parser.error(f"--checkpoints: {error}")
    data = [described(checkpoint, DATA) for checkpoint in found]
    model = described(found[0]) if found else None
    arguments = model["init_args"] if model else {}
    attack = arguments.get("val_attack") or trained_with(arguments)
    for key, value in (("attack", attack), ("data", data[0] if data else None)):
        if value:
            parser.set_defaults({key: value})
    return data


def _checkpoints(words: Sequence[str]) -> list[str]:
    """Return the checkpoints that a command line names, itself or in its configuration files."""
    probe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    probe.add_argument("-c", "--config", action="append", default=[])
    probe.add_argument("--checkpoints")
    probe.add_argument("--checkpoints+", dest="further", action="append", default=[])
    given = probe.parse_known_args(list(words))[0]
    paths: Any = []
    with suppress(yaml.YAMLError, OSError, UnicodeDecodeError):  # the parser will report it
        for file in given.config:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            paths = content.get("checkpoints", paths) if isinstance(content, dict) else paths
        paths = paths if given.checkpoints is None else yaml.safe_load(given.checkpoints)
        paths = [*paths, *given.further] if isinstance(paths, list) else []
    return [path for path in paths if isinstance(path, str)]


def _kind(data: dict[str, Any] | None) -> str | None:
    """Return the short class name of a data module, with the classes that it was asked for."""
    if data is None:
        return None
    name, classes = data["class_path"].rpartition(".")[2], data.get("init_args", {}).get("classes")
    return name if classes is None else f"{name}(classes={classes})"


def _trainer(config: dict[str, Any], save_config: SaveConfigCallback) -> Trainer:
    """Build the trainer, by default with the project's progress bar and TensorBoard."""
    own = config.get("callbacks") or []
    own = own if isinstance(own, list) else [own]
    callbacks = [*own, *default_bar(config, own)]
    config["logger"] = default_logger(config) or config["logger"]
    if config["logger"] and not config.get("fast_dev_run"):
        callbacks.append(save_config)
    return Trainer(**(config | {"callbacks": callbacks}))
