"""The command line: Lightning's, with the project's callbacks, defaults and errors."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.seed import max_seed_value, min_seed_value
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Timer, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, _InstantiatorFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

# Imported so that their classes can be named without a module path.
from adv_lightning import data, evaluation, models  # noqa: F401
from adv_lightning.callbacks import (
    AdversarialCheckpoint,
    GivenSettings,
    HiddenPerturbation,
    L1Penalty,
    NotFiniteError,
)
from adv_lightning.cli.compare import compare
from adv_lightning.cli.defaults import default_bar, default_logger, default_plugins
from adv_lightning.cli.disk import check_folder, full_disk_named
from adv_lightning.cli.errors import arguments_of
from adv_lightning.cli.named_callbacks import ON_BY_DEFAULT, NamedCallbacks
from adv_lightning.cli.parser import ArgumentParser, is_ours
from adv_lightning.cli.processes import LostProcessError, one_of_several
from adv_lightning.cli.refit import refit_arguments
from adv_lightning.cli.runs import RunConfig, resolved
from adv_lightning.cli.words import value_of
from adv_lightning.evaluation import AttackSuite
from adv_lightning.evaluation.comparison import Comparison
from adv_lightning.methods.checkpoint_format import DATA, described, read_checkpoint
from adv_lightning.module import AdversarialModule

_WORDS = ("best", "last", "hpc", "registry")


_FROM_DATA = ("num_classes", "input_shape")
_NETS = ("model.init_args.backbone", "model.init_args.backbone.init_args.backbone")
"""The networks that learn of the data: the backbone, and one that it wraps."""


class _ModuleInstantiator(_InstantiatorFn):
    """Keeps out of the hyper-parameters what was linked to a network that does not take it."""

    def __call__(self, class_type: Any, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        self.cli._dump_config()
        links = {key: value for key, value in applied_instantiation_links.items() if not key.startswith(_NETS[0])}
        net, config = kwargs.get("backbone"), self.cli.config_dump[self.key]["init_args"].get("backbone")
        for owner in _NETS:
            if not isinstance(net, nn.Module) or not isinstance(config, dict):
                break
            for name in _FROM_DATA:
                target = f"{owner}.init_args.{name}"
                if target in applied_instantiation_links and name in arguments_of(type(net)):
                    config.setdefault("init_args", {})
                    links[target] = applied_instantiation_links[target]
            net, config = getattr(net, "backbone", None), config.get("init_args", {}).get("backbone")
        return super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)


def _plain(value: Any) -> Any:
    # The logger's hparams.yaml would write a tuple as a Python object.
    return list(value) if isinstance(value, tuple) else value


class AdversarialCLI(LightningCLI):
    """LightningCLI for `AdversarialModule` and its subclasses.

    Differs from Lightning's in this: what the command line and the configuration files say wins over what the
    checkpoint in `--ckpt_path` remembers; the project's callbacks are the group `callbacks`, merged over files;
    the number of classes and the input's shape reach the backbone from the data; the TensorBoard logger shows no
    placeholder metric; `--test_after_fit` ends training with a test.
    """

    def __init__(self, model_class: type[AdversarialModule] = AdversarialModule, args: ArgsType = None, **kwargs: Any):
        kwargs.setdefault("datamodule_class", LightningDataModule)
        kwargs.setdefault("seed_everything_default", 0)
        kwargs.setdefault("save_config_callback", RunConfig)
        self._run: Path | None = None  # the folder of the run that goes on, and the step at which it does
        self._step = 0
        self._default_model = model_class
        super().__init__(
            model_class,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=ArgumentParser,
            args=args,
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(NamedCallbacks, "callbacks")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="Judge the best checkpoint on the test set after fit.",
        )
        parser.set_defaults({"model": {"class_path": _path(self._default_model)}})
        parser.set_defaults({f"callbacks.{name}": {"class_path": _path(c)} for name, c in ON_BY_DEFAULT.items()})
        for source in _FROM_DATA:
            for owner in _NETS:
                parser.link_arguments(f"data.{source}", f"{owner}.init_args.{source}", _plain, apply_on="instantiate")

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(
            _ModuleInstantiator(cli=self, key="model"), self._default_model, subclasses=True, prepend=True
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        for command in {"test", "validate"} & self._commands.keys():
            # The table of the attack suite says the same, and more.
            self._commands[command].set_defaults({"verbose": False})

    @property
    def _commands(self) -> dict[str, LightningArgumentParser]:
        """The parsers of the commands; with `run=False` there are none."""
        return getattr(self, "_subcommand_parsers", {})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        words = sys.argv[1:] if args is None else args
        path = None
        if isinstance(words, list):
            try:
                args, self._run = resolved(words, self._commands)
            except ValueError as error:
                parser.error(str(error))
            path = value_of(args, "ckpt_path")
            if issubclass(self.save_config_callback or object, RunConfig):
                self.save_config_kwargs["ckpt_path"] = path
        self._remembered: dict[str, Any] | None = None
        if path is not None and path not in (*_WORDS, "null") and "://" not in path:
            self._remember(Path(path), parser)
        with warnings.catch_warnings():
            # `refit` and callers from Python pass arguments on purpose.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            super().parse_arguments(parser, args)
        seed = self.config.get(f"{self.config.get('subcommand')}.seed_everything")
        if isinstance(seed, int) and not min_seed_value <= seed <= max_seed_value:
            parser.error(f"--seed_everything={seed}: give a number from {min_seed_value} to {max_seed_value}")
        callbacks = self.config.get(f"{self.config.get('subcommand')}.trainer.callbacks")
        if self._run is not None and isinstance(callbacks, list):
            # What a += on this command line adds is in the run's settings already.
            callbacks[:] = [each for i, each in enumerate(callbacks) if each not in callbacks[:i]]
        model = self.config.get(f"{self.config.get('subcommand')}.model")
        if self._remembered and model and _same(model.get("init_args.val_attack"), self._remembered):
            # Nobody spoke of it: it means the attack again, whatever that is now.
            model["init_args.val_attack"] = None

    def _remember(self, path: Path, parser: LightningArgumentParser) -> None:
        """Make what the checkpoint remembers the default, so that files and the command line win over it."""
        if not path.is_file():
            inside = next(iter(sorted(path.rglob("*.ckpt"))), None) if path.is_dir() else None
            found = "this is a folder" if path.is_dir() else "there is no such file"
            parser.error(
                f"--ckpt_path={path}: {found}; give a checkpoint{'' if inside is None else f', such as {inside}'}"
            )
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            parser.error(f"--ckpt_path={error}")
        self._step = int(checkpoint.get("global_step", 0))
        if self._run is not None and issubclass(self.save_config_callback or object, RunConfig):
            self.save_config_kwargs["resumed_at"] = self._step
        known = {"model": described(checkpoint), "data": described(checkpoint, DATA)}
        for command, subparser in self._commands.items():
            model = copy.deepcopy(known["model"])
            if model and command != "fit" and model["init_args"].get("val_attack") is None:
                # So that --model.val_attack.eps has a class to belong to.
                self._remembered = model["init_args"]["val_attack"] = model["init_args"].get("attack")
            for key, value in (("model", model), ("data", known["data"])):
                if value:
                    subparser.set_defaults({key: value})

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` has read the checkpoint already, below the command line, not above it."""

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            # What is wrong with a layer's name is known now, before a logger makes the run's folder.
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it late
                if isinstance(callback, HiddenPerturbation | L1Penalty):
                    callback.check(self.model)
            if folder := self._writes_to():
                check_folder(folder)
        except (ValueError, TypeError, ImportError) as error:
            if not is_ours(error):
                raise
            self._parser(self.subcommand).error(str(error), error)

    def _writes_to(self) -> str | None:
        """Return the folder of the runs, or None where there is none, or it is not on this machine."""
        trainer = self.trainer
        if trainer.fast_dev_run or not (trainer.loggers or trainer.checkpoint_callbacks):  # type: ignore[attr-defined]
            return None
        folder = str((trainer.logger and trainer.logger.save_dir) or trainer.default_root_dir)
        return None if "://" in folder else folder

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer", default={})
        fitting = self.subcommand in ("fit", None)
        if not fitting:
            # Only training needs the state of the callbacks that a checkpoint was made with.
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create")
            if self._get(self.config, "ckpt_path") is None:
                rank_zero_info("No --ckpt_path: the network has the weights it was initialised with.")
        if self._run is not None:
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        if logger := default_logger(config, self._run, self._step):
            kwargs["logger"] = logger
        elif config.get("logger") is False:
            self.save_config_callback = None  # it would write to the current directory
        named = self._get(self.config_init, "callbacks").callbacks
        if not fitting or config.get("enable_checkpointing") is False:
            named = [callback for callback in named if not isinstance(callback, AdversarialCheckpoint)]
        if self.subcommand in ("test", "validate") and not any(isinstance(cb, AttackSuite) for cb in named):
            self.config_init[self.subcommand]["verbose"] = True  # or nothing would be printed
        own = config.get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        given = self.trainer_defaults.get("callbacks") or []
        given = [*own, *(given if isinstance(given, list) else [given])]
        kwargs["plugins"] = default_plugins(config.get("plugins"))
        timer = Timer(duration=config.get("max_time"))
        kwargs["callbacks"] = [*named, *default_bar(config, given), timer, GivenSettings(), *own]
        trainer = super().instantiate_trainer(**kwargs)
        several = fitting and trainer.world_size > 1
        if several and config.get("sync_batchnorm") and trainer.strategy.root_device.type == "cpu":
            raise ValueError(
                "trainer.sync_batchnorm=true needs a GPU, torch has nothing of the kind for the CPU: leave it out, and "
                "each process normalises by its own batches"
            )
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        with full_disk_named(self._writes_to() or "."), one_of_several(self.trainer):
            super()._run_subcommand(subcommand)

    def predict(self, **kwargs: Any) -> None:
        """Predict, and write what comes back to `predictions.pt` in the run's directory, a file a process."""
        batches = self.trainer.predict(**kwargs)
        if not batches or not self.trainer.loggers or self.trainer.log_dir is None:
            return
        name = "predictions.pt" if self.trainer.world_size == 1 else f"predictions-{self.trainer.global_rank}.pt"
        path = Path(self.trainer.log_dir) / name
        torch.save(batches, path)
        print(f"{len(batches)} batches of probabilities are in {path}")

    def after_fit(self) -> None:
        """Judge the best checkpoint, or where there is none the last state, if asked to."""
        if not self._get(self.config, "test_after_fit") or self.trainer.interrupted:
            return
        checkpoint = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        best = checkpoint or getattr(self.trainer.checkpoint_callback, "last_model_path", "")
        # The callback would put the weights of training in the place of the averaged ones that the checkpoint is of.
        kept = [callback for callback in self.trainer.callbacks if not isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
        self.trainer.callbacks = kept  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create")
        self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False)


def main(args: list[str] | None = None) -> AdversarialCLI | Comparison:
    """Run the command line `args`, by default `sys.argv[1:]`, and return the CLI with its trainer and model.

    `compare` returns the comparison with its figures.

    Raises:
        SystemExit: an argument is wrong, a file is missing or a disk is full; the reason is printed, status 2.
    """
    words = sys.argv[1:] if args is None else args
    if words and words[0] == "refit":
        args = refit_arguments(words[1:])
    try:
        if words and words[0] == "compare":
            return compare(words[1:])
        return AdversarialCLI(args=args)
    except SIGTERMException:
        raise SystemExit(143) from None  # as a shell says it, and not 0: the run is not finished
    except MisconfigurationException as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    except (OSError, ValueError, TypeError, ImportError, NotFiniteError, LostProcessError) as error:
        if not is_ours(error):
            raise
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error


def _same(config: Any, stored: dict[str, Any]) -> bool:
    return isinstance(config, Namespace) and config.as_dict() == stored


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
