"""A second attack that does what another does now, whatever is changed in that one later."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from adv_lightning.attacks.base import Attack

A = TypeVar("A", bound=Attack)


def copy_of(attack: A) -> A:
    """Return a copy of an attack, and of the attacks inside it, which shares their networks, tensors and generators.

    A schedule that changes `eps` of one does not change the other. Where an attack cannot be copied, it is returned
    itself, with a warning.
    """
    attacks = [each for each in attack.modules() if isinstance(each, Attack)]
    shared = {id(value): value for each in attacks for value in _shared(vars(each))}
    try:
        return copy.deepcopy(attack, shared)
    except Exception as error:  # a user's attack may hold anything
        rank_zero_warn(
            f"{attack!r} cannot be copied ({type(error).__name__}: {error}), so validation uses the attack of "
            "training, and a change of its eps in training changes it there too. Pass another one as val_attack"
        )
        return attack


def _shared(value: Any) -> Iterator[Any]:
    """Yield the networks, tensors and generators among the attributes of an attack."""
    if isinstance(value, Tensor | torch.Generator) or (isinstance(value, nn.Module) and not isinstance(value, Attack)):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _shared(each)
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _shared(each)
