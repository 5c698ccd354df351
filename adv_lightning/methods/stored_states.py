"""The states of callbacks, optimizers and others in a checkpoint, made safe to load, and as they were again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from adv_lightning.attacks.plain_values import not_plain, plain_numbers
from adv_lightning.methods.stored_arguments import restore, split

_CONVERTED = "adv_lightning_converted"
"""Key of the places of values that were no data."""
_OF_LIGHTNING = {"optimizer_states", "lr_schedulers", "loops"}
"""States whose only values that are no data are numpy's numbers."""


def make_states_plain(checkpoint: dict[str, Any], *, but: Collection[str]) -> dict[str, Any]:
    """Make the states of callbacks and others safe to load, in place; return what is left out.

    Args:
        checkpoint: What Lightning will write.
        but: Keys that are not looked at.
    """
    left_out: dict[str, Any] = {}
    converted = []
    for key in _OF_LIGHTNING & checkpoint.keys():
        checkpoint[key] = plain_numbers(checkpoint[key])
    for key in sorted(checkpoint.keys() - _OF_LIGHTNING - {"callbacks", *but}):
        kept, lost = split({key: checkpoint[key]})
        converted += [[key]] if _replace(checkpoint, key, kept) else []
        left_out |= lost
    states = {key: state for key, state in checkpoint.get("callbacks", {}).items() if isinstance(state, dict)}
    for key, state in states.items():
        kept, lost = split(state)
        left_out |= {f"{key}[{name!r}]": value for name, value in lost.items()}
        converted += [["callbacks", key, name] for name in list(state) if _replace(state, name, kept)]
    checkpoint[_CONVERTED] = converted
    return left_out


def _replace(state: dict[str, Any], name: str, kept: dict[str, Any]) -> bool:
    """Put what can be stored in the place of a value, or nothing; return whether the value was no data."""
    if name not in kept:
        del state[name]
    elif next(not_plain(state[name], ""), None) is not None:
        state[name] = kept[name]
        return True
    return False


def restore_states(checkpoint: dict[str, Any]) -> None:
    """Put the values that were no data back, in place."""
    for *path, name in checkpoint.get(_CONVERTED, ()):
        place: Any = checkpoint
        for key in path:
            place = place.get(key) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            continue  # the list is from a file, and names what is not there
        place.update(restore({name: place[name]}, ()))
