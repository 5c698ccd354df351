"""Lightning's command line, with the project's callbacks, defaults and errors.

Length: one class, whose methods are the hooks of Lightning's command line.
"""

from __future__ import annotations

import copy
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.seed import max_seed_value, min_seed_value
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

# Imported so that their classes can be named without a module path.
from adv_lightning import data, evaluation, models  # noqa: F401
from adv_lightning.attacks.description import class_path
from adv_lightning.callbacks import AdversarialCheckpoint, HiddenPerturbation, L1Penalty
from adv_lightning.callbacks.run_folder import run_folder
from adv_lightning.cli.defaults import default_callbacks, default_logger, default_plugins
from adv_lightning.cli.error_messages import is_ours, origin
from adv_lightning.cli.failed_runs import check_folder, failed_writes_named, one_of_several
from adv_lightning.cli.linked_arguments import link_data, module_builder
from adv_lightning.cli.named_callbacks import ON_BY_DEFAULT, NamedCallbacks, callbacks_of
from adv_lightning.cli.parser import ArgumentParser
from adv_lightning.cli.resume import is_given, named_checkpoint, named_in_errors, other_split, resolved, value_of
from adv_lightning.cli.runs import RunConfig, writes_to
from adv_lightning.evaluation import AttackSuite
from adv_lightning.methods.checkpoint_format import DATA, described, trained_with, unbuildable
from adv_lightning.methods.moved_paths import moved
from adv_lightning.module import AdversarialModule

_WORDS = ("best", "last", "hpc", "registry")
_OTHER_CALLBACKS = "Be aware that when using .ckpt_path., callbacks used to create"
_OWN_FOLDER = "Checkpoint directory .* exists and is not empty"


class AdversarialCLI(LightningCLI):
    """LightningCLI for `AdversarialModule` and its subclasses.

    It differs from Lightning's in these points. The command line and configuration files win over the settings stored
    in the checkpoint of `--ckpt_path`. The project's callbacks have keys of their own, `callbacks.NAME`, which are
    merged over files. The backbone gets the number of classes and the input's shape from the data. The TensorBoard
    logger shows no placeholder metric. `--test_after_fit` tests after training.
    """

    def __init__(self, model_class: type[AdversarialModule] = AdversarialModule, args: ArgsType = None, **kwargs: Any):
        kwargs.setdefault("datamodule_class", LightningDataModule)
        kwargs.setdefault("seed_everything_default", 0)
        kwargs.setdefault("save_config_callback", RunConfig)
        given = kwargs.pop("parser_kwargs", None) or {}
        kwargs["parser_kwargs"] = given | {name: {"command": name} | given.get(name, {}) for name in self.subcommands()}
        self._commands: dict[str, ArgumentParser] = {}
        self._run: Path | None = None  # the folder of the run that continues, and the step at which it does
        self._step = 0
        self._ckpt_path: str | None = None
        self._default_model = model_class
        with ExitStack() as self._while_running:
            super().__init__(
                model_class,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                parser_class=ArgumentParser,
                args=args,
                **kwargs,
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # WeightAveraging copies the module, and with it the trainer, its parser and this, which cannot be copied.
        return self

    # Parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(NamedCallbacks, "callbacks")
        help_text = "Test the best checkpoint after fit."
        parser.add_argument("--test_after_fit", type=bool, default=False, help=help_text)
        parser.set_defaults({"model": {"class_path": class_path(self._default_model)}})
        parser.set_defaults(ON_BY_DEFAULT)
        link_data(parser)
        if isinstance(parser, ArgumentParser) and parser.command is not None:
            self._commands[parser.command] = parser

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        if isinstance(self.parser, ArgumentParser):
            self.parser.commands = self._commands

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
        self._data: dict[str, Any] | None = None
        if path is not None and path not in (*_WORDS, "null") and "://" not in path:
            self._remember(Path(path), parser)
        self.config = parser.parse_args(args) if isinstance(args, list) else parser.parse_object(moved(args))
        settings = self._settings(self.config)
        seed = settings.get("seed_everything")
        if isinstance(seed, int) and not min_seed_value <= seed <= max_seed_value:
            parser.error(f"--seed_everything={seed}: give a number from {min_seed_value} to {max_seed_value}")
        if isinstance(settings.get("callbacks"), list):
            parser.error(
                "callbacks: expected names with settings, as in callbacks: {early_stopping: {patience: 3}}, got a "
                "list. Callbacks of your own belong below trainer: callbacks"
            )
        callbacks = settings.get("trainer.callbacks")
        if self._run is not None and isinstance(callbacks, list):
            # The run's settings already have what a += on this command line adds.
            callbacks[:] = [each for i, each in enumerate(callbacks) if each not in callbacks[:i]]
        model = settings.get("model")
        judge = model.get("init_args.val_attack") if self._remembered and model else None
        given = isinstance(args, list) and is_given(args, "val_attack")
        if isinstance(judge, Namespace) and judge.as_dict() == self._remembered and not given:
            # Nothing was said of it, so it means the attack, which may be another one now.
            model["init_args.val_attack"] = None
        # Lightning would let the checkpoint win over the command line, so it sees no path until it has parsed.
        self._ckpt_path = settings.get("ckpt_path")
        if self.config.get("subcommand") == "validate" and (other := other_split(settings.get("data"), self._data)):
            rank_zero_warn(
                f"{other} differ from those of the checkpoint's training, so the network may be judged on images that "
                "it was trained on. Leave them out, or test on other data"
            )
        if self._ckpt_path is not None:
            settings["ckpt_path"] = None

    def before_instantiate_classes(self) -> None:
        if self._ckpt_path is not None:
            self._settings(self.config)["ckpt_path"] = self._ckpt_path
        self.parser.add_instantiator(module_builder(self), self._default_model, subclasses=True, prepend=True)

    def _settings(self, config: Namespace) -> Namespace:
        """Return the settings of the command, or with `run=False` all of them."""
        settings: Namespace = config.get(str(config.get("subcommand")), config)
        return settings

    def _remember(self, path: Path, parser: LightningArgumentParser) -> None:
        """Make the settings in the checkpoint the defaults, so that files and the command line win over them."""
        try:
            checkpoint = named_checkpoint(path)
        except ValueError as error:
            parser.error(f"--ckpt_path={error}")
        self._step = int(checkpoint.get("global_step", 0))
        lacking = unbuildable(checkpoint, path)
        for each in (parser, *self._commands.values()):
            if isinstance(each, ArgumentParser):
                each.lacking = lacking
        if self._run is not None and issubclass(self.save_config_callback or object, RunConfig):
            self.save_config_kwargs["resumed_at"] = self._step
        known = {"model": described(checkpoint), "data": described(checkpoint, DATA)}
        self._data = copy.deepcopy(known["data"])
        for command, subparser in self._commands.items():
            model = copy.deepcopy(known["model"])
            arguments = model["init_args"] if model else {}
            if command != "fit" and arguments.get("val_attack", ...) is None:
                # So that --model.val_attack.eps has a class to belong to.
                self._remembered = arguments["val_attack"] = trained_with(arguments)
            defaults = {"model": model, "data": known["data"]}
            with named_in_errors(path, parser):
                subparser.set_defaults({key: value for key, value in defaults.items() if value})

    # Building

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            # Check layer names now, before a logger makes the run's folder.
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it late
                if isinstance(callback, HiddenPerturbation | L1Penalty):
                    callback.check(self.model)
            if folder := writes_to(self.trainer):
                check_folder(folder)
        except Exception as error:
            first = origin(error)
            if isinstance(error, ValueError | TypeError | ImportError) and is_ours(error):
                first = error
            elif not isinstance(first, OSError):  # a mistake in the code of a network needs its traceback
                if first is error:
                    raise
                raise first from first.__cause__
            self._commands.get(self.subcommand or "", self.parser).error(str(first), first)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self._settings(self.config_init)
        config = settings.get("trainer", {})
        fitting = self.subcommand in ("fit", None)
        if not fitting and self._ckpt_path is None:
            rank_zero_info("No --ckpt_path: the network has its initial weights.")
        if logger := default_logger(config, self._run, self._step):
            kwargs["logger"] = logger
        elif config.get("logger") is False:
            self.save_config_callback = None  # it would write to the current directory
        named = callbacks_of(settings["callbacks"])
        if not fitting or config.get("enable_checkpointing") is False:
            named = [callback for callback in named if not isinstance(callback, AdversarialCheckpoint)]
        own = config.get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        given = self.trainer_defaults.get("callbacks") or []
        given = [*own, *(given if isinstance(given, list) else [given])]
        kwargs["plugins"] = default_plugins(config.get("plugins"))
        kwargs["callbacks"] = [*named, *default_callbacks(config, given), *own]
        trainer = super().instantiate_trainer(**kwargs)
        several = fitting and trainer.world_size > 1
        if several and config.get("sync_batchnorm") and trainer.strategy.root_device.type == "cpu":
            raise ValueError(
                "trainer.sync_batchnorm=true needs a GPU: torch cannot synchronise BatchNorm on the CPU. Remove it; "
                "each process then normalises by its own batches"
            )
        return trainer

    # Running

    def after_instantiate_classes(self) -> None:
        """Prepare for the command, if there is one; what is entered here ends with it."""
        if self.subcommand is None:
            return
        self._while_running.enter_context(failed_writes_named(writes_to(self.trainer) or "."))
        self._while_running.enter_context(one_of_several(self.trainer))
        self._while_running.enter_context(warnings.catch_warnings())
        if self.subcommand != "fit":
            # Only training needs the state of the callbacks that a checkpoint was made with.
            warnings.filterwarnings("ignore", _OTHER_CALLBACKS)
        if self._run is not None:
            warnings.filterwarnings("ignore", _OWN_FOLDER)

    def validate(self, **kwargs: Any) -> None:
        """Evaluate on the validation set."""
        self.trainer.validate(**self._without_second_table(kwargs))

    def test(self, **kwargs: Any) -> None:
        """Evaluate on the test set."""
        self.trainer.test(**self._without_second_table(kwargs))

    def _without_second_table(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Leave out Lightning's table of figures if the attack suite prints a fuller one."""
        suite = any(isinstance(each, AttackSuite) for each in self.trainer.callbacks)  # type: ignore[attr-defined]
        return kwargs | {"verbose": kwargs["verbose"] and not suite}

    def predict(self, **kwargs: Any) -> None:
        """Predict, and write the probabilities to `predictions.pt` in the run's folder, one file for each process."""
        batches, folder = self.trainer.predict(**kwargs), run_folder(self.trainer)
        if not batches or not self.trainer.loggers or folder is None:
            return
        name = "predictions.pt" if self.trainer.world_size == 1 else f"predictions-{self.trainer.global_rank}.pt"
        path = Path(folder) / name
        torch.save(batches, path)
        print(f"{len(batches)} batches of probabilities are in {path}")

    def after_fit(self) -> None:
        """Test the best checkpoint if asked to, or the last state if there is none."""
        if not self._settings(self.config).get("test_after_fit") or self.trainer.interrupted:
            return
        checkpoint = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        best = checkpoint or getattr(self.trainer.checkpoint_callback, "last_model_path", "")
        # The checkpoint holds averaged weights; this callback would replace them by those of training.
        kept = [callback for callback in self.trainer.callbacks if not isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
        self.trainer.callbacks = kept  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _OTHER_CALLBACKS)
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, verbose=False)
