"""The kinds of value in a checkpoint: a damaged one is refused by name before training starts.

Length: a checkpoint has many parts, and each is looked at in its own way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LARGEST = 2**53
"""Counts above it are not exact as floats, and no training gets there."""


@dataclass(frozen=True)
class Kind:
    """What a value must be.

    Args:
        says: What an error expects, such as "a string".
        fits: Whether a value is of this kind.
        optional: Whether the value may be missing or None.
    """

    says: str
    fits: Callable[[Any], bool]
    optional: bool = False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_score(value: Any) -> bool:
    real = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool
    return real and not bool(value.isnan().any())


def _is_real(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return number or _is_score(value)


def _is_counts(value: Tensor, steps: Tensor) -> bool:
    """Whether a tensor holds a count for each process, as the steps are counted."""
    if value.is_complex() or value.dtype == torch.bool or value.shape != steps.shape:
        return False
    return bool(((value >= 0) & (value < _LARGEST)).all())


def _is_means(value: Any) -> bool:
    """Whether a value is the state of `RunningMeans`, possibly of several processes."""
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()) or "steps" not in value:
        return False
    steps = value["steps"]
    if steps.is_floating_point() or steps.is_complex() or steps.dim() > 1 or not bool((steps >= 0).all()):
        return False
    if not all(_is_counts(value[name], steps) for name in ("examples", "size") if name in value):
        return False
    sums, pending = ([v for k, v in value.items() if str(k).startswith(start)] for start in ("sum/", "pending/"))
    return all(v.shape == steps.shape for v in sums) and all(v.shape[:-1] == steps.shape and v.dim() for v in pending)


COUNT = Kind(f"a whole number from 0 to {_LARGEST}", _is_count)
NUMBER = Kind("a finite number", _is_number)
TEXT = Kind("a string", lambda value: isinstance(value, str))
SCORE = Kind("a tensor of one real number", _is_score)
TENSOR = Kind("a tensor", lambda value: isinstance(value, Tensor))
_ANY = Kind("anything", lambda value: True)
MAPPING = Kind("a mapping", lambda value: isinstance(value, dict))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
_REAL = Kind("a number", _is_real)
_PLAIN = Kind("a number, a string or nothing", lambda value: value is None or isinstance(value, str | int | float))
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.dev|\.post)\d+)*(\+\w+(\.\w+)*)?$")
_STAGES = ("ready", "started", "processed", "completed")
_PLAIN_OPTIMIZERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad)
"""Those that keep nothing but numbers, and tensors of the parameters' shapes."""
_LIKE: tuple[tuple[Any, Kind], ...] = ((bool, FLAG), ((int, float, Tensor), _REAL), (str, TEXT), (type(None), _PLAIN))
"""The kind of a value that stands where another one of a type does."""


def optional(kind: Kind) -> Kind:
    """Return the kind of a value that may be missing or None."""
    return Kind(f"{kind.says}, or None", kind.fits, optional=True)


def mapping(kind: Kind) -> Kind:
    """Return the kind of a mapping from strings to values of one kind."""
    return Kind(
        f"a mapping from strings to {kind.says}",
        lambda value: isinstance(value, dict) and all(isinstance(k, str) and kind.fits(v) for k, v in value.items()),
    )


def sequence(kind: Kind) -> Kind:
    """Return the kind of a list of values of one kind."""
    return Kind(f"a list of {kind.says}", lambda value: isinstance(value, list) and all(map(kind.fits, value)))


_PARTS = {
    "state_dict": MAPPING,
    "pytorch-lightning_version": Kind("a version", lambda v: isinstance(v, str) and bool(_VERSION.match(v))),
    "epoch": COUNT,
    "global_step": COUNT,
    "loops": mapping(MAPPING),
    "callbacks": mapping(Kind("states", lambda value: not isinstance(value, Tensor))),
    "optimizer_states": sequence(MAPPING),
    "lr_schedulers": sequence(MAPPING),
    "hyper_parameters": mapping(_ANY),
    "datamodule_hyper_parameters": mapping(_ANY),
    "adv_lightning_format": COUNT,
    "adv_lightning_seed": optional(COUNT),
    "adv_lightning_means": mapping(Kind("means", _is_means)),
    "adv_lightning_classes": optional(sequence(TEXT)),
    "adv_lightning_converted": sequence(Kind("places", lambda v: bool(v) and sequence(TEXT).fits(v))),
}


def check_kinds(found: Any, kinds: Mapping[str, Kind], place: str, file: Any) -> None:
    """Check the named values of a mapping; others in it may be anything.

    Args:
        found: What the file holds.
        kinds: What its values must be, by name.
        place: Where it stands in the file, such as "the state of AdversarialCheckpoint".
        file: The file, which an error names.

    Raises:
        ValueError: it is not a mapping, or a value is missing or of another kind.
    """
    if not isinstance(found, Mapping):
        raise _damaged(file, place, found, MAPPING)
    for name, kind in kinds.items():
        value = found.get(name)
        if not (kind.fits(value) or (kind.optional and value is None)):
            raise _damaged(file, f"{name!r} in {place}", value, kind)


def check_checkpoint(checkpoint: Mapping[str, Any], file: Any) -> None:
    """Check the parts of a checkpoint: which are mappings, lists, counts.

    Args:
        checkpoint: What the file holds, with a `state_dict`.
        file: The file, which an error names.

    Raises:
        ValueError: a part is of another kind.
    """
    check_kinds(checkpoint, {k: v for k, v in _PARTS.items() if k in checkpoint}, "the checkpoint", file)
    # A module may store what it likes under a name of this end.
    weights = {k: v for k, v in checkpoint["state_dict"].items() if not str(k).endswith("_extra_state")}
    check_kinds({"state_dict": weights}, {"state_dict": mapping(TENSOR)}, "the checkpoint", file)
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        check_kinds(checkpoint.get(key) or {}, {"_class_path": optional(TEXT)}, f"{key} of the checkpoint", file)
    for state in checkpoint.get("optimizer_states") or ():
        check_kinds(state, {"state": MAPPING, "param_groups": sequence(MAPPING)}, "the optimizer's state", file)
    if (timer := (checkpoint.get("callbacks") or {}).get("Timer")) is not None:
        check_kinds(timer, {"time_elapsed": mapping(NUMBER)}, "the state of Timer", file)


def check_loop(found: Mapping[str, Any], counters: Mapping[str, Any], place: str, file: Any) -> None:
    """Check the state of a loop against the one at its start.

    Raises:
        ValueError: a counter is not one, or the position of a loader of this package is not one.
    """
    for name in counters.keys() & found.keys():  # others are of another version of Lightning
        check_kinds(found, {name: MAPPING}, place, file)
        known = {k: v for k, v in counters[name].items() if "progress" in name or k in found[name]}
        _check_counters(found[name], known, f"{place}.{name}", file)
    kept = found.get("state_dict", {})
    check_kinds(kept, {"combined_loader": optional(Kind("a list", lambda value: isinstance(value, list)))}, place, file)
    for position in kept.get("combined_loader") or ():
        if isinstance(position, Mapping) and {"epoch", "batches"} & position.keys():
            check_kinds(position, {"epoch": COUNT, "batches": COUNT}, f"the loader's position in {place}", file)


def check_number(states: Sequence[Any], optimizers: Sequence[Any], file: Any) -> None:
    """Check that a checkpoint has the state of each optimizer: Lightning would leave out the others without a word.

    Raises:
        ValueError: it has more or fewer.
    """
    if len(states) != len(optimizers):
        raise _damaged(file, "'optimizer_states'", [*states], Kind(f"{len(optimizers)} states, one an optimizer", bool))


def check_optimizer(found: Mapping[str, Any], optimizer: torch.optim.Optimizer, file: Any) -> None:
    """Check the state of an optimizer against the optimizer that is to continue with it.

    Raises:
        ValueError: a setting is of another kind, or a value does not fit its parameter.
    """
    place, groups = f"the state of {type(optimizer).__name__}", optimizer.state_dict()["param_groups"]
    if len(found["param_groups"]) != len(groups):
        kind = Kind(f"{len(groups)} groups", bool)
        raise _damaged(file, f"'param_groups' in {place}", found["param_groups"], kind)
    for group, now, like in zip(found["param_groups"], optimizer.param_groups, groups, strict=True):
        numbers = group.get("params")
        if not sequence(COUNT).fits(numbers) or len(set(numbers)) < len(numbers):
            raise _damaged(file, f"'params' in {place}", numbers, Kind("a list of different numbers", bool))
        _check_like(group, {k: v for k, v in like.items() if k != "params"}, place, file)
        if type(optimizer) not in _PLAIN_OPTIMIZERS:
            continue
        if len(numbers) != len(now["params"]):
            raise _damaged(file, f"'params' in {place}", numbers, Kind(f"{len(now['params'])} numbers", bool))
        expected: dict[str, str] | None = None
        for number, parameter in zip(numbers, now["params"], strict=False):
            held = found["state"].get(number, {})
            check_kinds(held, {}, place, file)
            kinds = {name: _form(value, parameter) for name, value in held.items()}
            expected = expected or kinds
            if _is_real(held.get("step")) and held["step"] < 0:
                raise _damaged(file, f"'step' of parameter {number} in {place}", held["step"], COUNT)
            if held and (kinds != expected or "" in kinds.values()):
                needed = Kind(f"{expected} as for the others", bool)
                raise _damaged(file, f"parameter {number} in {place}", kinds, needed)
    for number, held in found["state"].items():
        check_kinds(held, {}, f"parameter {number} in {place}", file)


def _form(value: Any, parameter: Tensor) -> str:
    """Return whether a value that an optimizer keeps is one number or of the parameter's shape; "" if neither."""
    if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0:
        return "a tensor of its shape"
    return "a number" if _is_real(value) else "nothing" if value is None else ""


def check_scheduler(found: Mapping[str, Any], scheduler: Any, file: Any) -> None:
    """Check the state of a scheduler against the scheduler that is to continue with it.

    Raises:
        ValueError: a value is of another kind.
    """
    _check_like(found, scheduler.state_dict(), f"the state of {type(scheduler).__name__}", file)


def _check_like(found: Any, like: Any, place: str, file: Any) -> None:
    """Check that values are of the kinds of others. What only one of them has is left to who reads it."""
    if isinstance(like, Mapping):
        check_kinds(found, {}, place, file)
        for name in like.keys() & found.keys():
            _check_like(found[name], like[name], f"{place}.{name}", file)
    elif isinstance(like, list | tuple):
        if not isinstance(found, list | tuple) or (isinstance(like, tuple) and len(found) != len(like)):
            raise _damaged(file, place, found, Kind(f"{len(like)} values", bool))
        for each, now in zip(found, like, strict=False):
            _check_like(each, now, place, file)
    else:
        kind = next((kind for types, kind in _LIKE if isinstance(like, types)), None)
        if kind is not None and not kind.fits(found):
            raise _damaged(file, place, found, kind)


def _check_counters(found: Any, like: Mapping[str, Any], place: str, file: Any) -> None:
    """Check that counters are counts, that none is missing, and that no stage has begun less often than the next."""
    kinds = {dict: MAPPING, bool: FLAG, int: COUNT}
    check_kinds(found, {name: kinds[type(value)] for name, value in like.items() if type(value) in kinds}, place, file)
    for name, value in like.items():
        if isinstance(value, dict):
            _check_counters(found[name], value, f"{place}.{name}", file)
    stages = [found[name] for name in _STAGES if name in like]
    at_most_one = not place.endswith("epoch_progress.current") or stages[0] - stages[-1] <= 1
    if place.endswith(".current") and not (stages == sorted(stages, reverse=True) and at_most_one):
        raise _damaged(file, place, dict(found), Kind(f"falling numbers of {_STAGES}", bool))


def _damaged(file: Any, place: str, value: Any, kind: Kind) -> ValueError:
    shown = " ".join(repr(value).split())
    shown = f"{shown[:60]}..." if len(shown) > 60 else shown
    return ValueError(f"{file} is damaged: {place} is {shown}, expected {kind.says}. Continue from another checkpoint")
