"""What a network gets from the data: the number of classes and the shape of the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context
from torch import nn

from adv_lightning.cli.error_messages import arguments_of

_FACTS = ("num_classes", "input_shape")
_NETWORKS = ("backbone", "backbone.init_args.backbone")
"""The networks that get them: the backbone, and one that it wraps."""


def link_data(parser: LightningArgumentParser) -> None:
    """Link the facts to the networks that accept them."""
    for fact in _FACTS:
        for network in _NETWORKS:
            parser.link_arguments(
                f"data.{fact}", f"model.init_args.{network}.init_args.{fact}", _as_list, apply_on="instantiate"
            )


def module_builder(cli: LightningCLI) -> Callable[..., Any]:
    """Return what builds the module of a command line that has parsed, with its configuration as hyper-parameters.

    Lightning's own builder would also store what a network does not accept, which then cannot be rebuilt.
    """

    def build(kind: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        config = yaml.safe_load(cli.parser.dump(cli.config, skip_link_targets=False, skip_none=False, format="yaml"))
        description = config.get(cli.subcommand, config)["model"]
        settings = dict(description.get("init_args", {})) | description.get("dict_kwargs", {})
        refused = _refused(kwargs.get("backbone"))
        for target, value in applied_instantiation_links.items():
            key = target.removeprefix("model.").removeprefix("init_args.")
            if target.startswith("model.") and key not in refused:
                _set(settings, key, value)
        stored = {"_class_path": description["class_path"], **settings}
        with _given_hyperparameters_context(stored, "lightning.pytorch.cli.instantiate_module"):
            return kind(*args, **kwargs)

    return build


def _refused(network: Any) -> set[str]:
    """Return the keys of the facts that the networks do not accept."""
    found = set()
    for place in _NETWORKS:
        accepted = arguments_of(type(network)) if isinstance(network, nn.Module) else []
        found |= {f"{place}.init_args.{fact}" for fact in _FACTS if fact not in accepted}
        network = getattr(network, "backbone", None)
    return found


def _set(settings: dict[str, Any], key: str, value: Any) -> None:
    *parts, last = key.split(".")
    for part in parts:
        settings[part] = settings.get(part) or {}
        settings = settings[part]
    settings[last] = value


def _as_list(value: Any) -> Any:
    # A tuple would be written to the logger's hparams.yaml as a Python object.
    return list(value) if isinstance(value, tuple) else value
