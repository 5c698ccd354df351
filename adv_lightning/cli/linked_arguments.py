"""What a network gets from the data: the number of classes and the shape of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context

from adv_lightning.attacks.plain_values import imported
from adv_lightning.cli.parser import ArgumentParser, taken_as_kwargs
from adv_lightning.methods.stored_classes import refused

_FACTS = {"num_classes": "num_classes", "input_shape": "input_shape", "in_chans": "input_shape"}
"""The arguments of networks that are facts of the data, and the data module's names of these."""
_NETWORKS = ("backbone", "backbone.init_args.backbone")
"""The networks that get them: the backbone, and one that it wraps."""


def link_data(parser: LightningArgumentParser) -> None:
    """Link the facts to the networks that accept them."""
    for argument, fact in _FACTS.items():
        for network in _NETWORKS:
            parser.link_arguments(
                f"data.{fact}",
                f"model.init_args.{network}.init_args.{argument}",
                _channels if argument == "in_chans" else _as_list,
                apply_on="instantiate",
            )


def module_builder(cli: LightningCLI) -> Callable[..., Any]:
    """Return what builds the module of a command line that has parsed, with its configuration as hyper-parameters.

    Lightning's own builder would also store what a network does not accept, which then cannot be rebuilt.
    """

    def build(kind: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        config = yaml.safe_load(cli.parser.dump(cli.config, skip_link_targets=False, skip_none=False, format="yaml"))
        description = config.get(cli.subcommand, config)["model"]
        settings = dict(description.get("init_args", {})) | description.get("dict_kwargs", {})
        for path in refused({"_class_path": description["class_path"], **settings}):
            raise ValueError(
                f"{path} is neither an nn.Module nor says that it returns one or a tensor, so a checkpoint that names "
                f"it would be refused. Annotate the function: def {path.rpartition('.')[2]}(...) -> torch.Tensor"
            )
        for place, fact, kept_as in _accepted(settings.get("backbone")):
            value = applied_instantiation_links.get(f"model.init_args.{place}.init_args.{fact}")
            if value is not None:
                _set(settings, f"{place}.{kept_as}.{fact}", value)
        stored = {"_class_path": description["class_path"], **settings}
        with _given_hyperparameters_context(stored, "lightning.pytorch.cli.instantiate_module"):
            return kind(*args, **kwargs)

    return build


def _accepted(network: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the networks of a configuration, the facts that each accepts, and where its settings keep them."""
    for place in _NETWORKS:
        if not (isinstance(network, dict) and "class_path" in network):
            return
        factory = imported(network["class_path"])
        accepted = ArgumentParser.arguments_of(factory)
        for fact in (each for each in _FACTS if each in accepted):
            yield place, fact, "dict_kwargs" if fact in taken_as_kwargs(factory) else "init_args"
        network = network.get("init_args", {}).get("backbone")


def _set(settings: dict[str, Any], key: str, value: Any) -> None:
    *parts, last = key.split(".")
    for part in parts:
        settings[part] = settings.get(part) or {}
        settings = settings[part]
    settings[last] = value


def _channels(shape: Any) -> Any:
    return shape[0] if isinstance(shape, list | tuple) and shape else None


def _as_list(value: Any) -> Any:
    # A tuple would be written to the logger's hparams.yaml as a Python object.
    return list(value) if isinstance(value, tuple) else value
