"""The names of the classes, by which a network that was trained on one data set is checked on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

_SHOWN = 5


def class_names(*sources: Any) -> list[str] | None:
    """Return the names of the classes in the order of their labels, from the first source that has them.

    Args:
        *sources: Data modules, loaders, collections of loaders, data sets, or None. They are asked for `class_names`,
            `class_to_idx` and `classes`, as data modules here and data sets of torchvision have, or for the data sets
            that they contain.
    """
    for source in sources:
        several = source.values() if isinstance(source, Mapping) else source
        for each in several if isinstance(source, Mapping | list | tuple) else (source,):
            if (found := _found_in(each)) is not None:
                return found
    return None


def _found_in(source: Any) -> list[str] | None:
    """Return the names that a source has, or that the data sets in it have."""
    parts = (getattr(source, "dataset", None), *(getattr(source, "datasets", None) or ()))
    inner = (_found_in(part) for part in parts if part is not None and part is not source)
    return _own_names(source) or next((names for names in inner if names), None)


def _own_names(source: Any) -> list[str] | None:
    index = getattr(source, "class_to_idx", None)
    if isinstance(index, Mapping) and sorted(index.values()) == list(range(len(index))):
        return _texts(sorted(index, key=lambda name: int(index[name])))
    return _texts(getattr(source, "class_names", None)) or _texts(getattr(source, "classes", None))


def _texts(names: Any) -> list[str] | None:
    listed = isinstance(names, Sequence) and not isinstance(names, str) and len(names) > 0
    return list(names) if listed and all(isinstance(name, str) for name in names) else None


def check_class_names(
    trained: Sequence[str] | None, here: Sequence[str] | None, whose: str, *, warn: bool = True
) -> None:
    """Compare the classes that a network was trained on with those of data; warn if they have other names.

    Fewer or more classes are no difference, as long as each label means the same.

    Args:
        trained: Names in the order of the labels. None: unknown.
        here: The same of the data. None: unknown.
        whose: Who was trained, for the message.
        warn: Whether to warn. Labels that a class of both does not share are refused in any case.

    Raises:
        ValueError: a class of both has another label.
    """
    if not trained or not here:
        return
    pairs = list(enumerate(zip(trained, here, strict=False)))
    differences = [f"{label} is {now}, was {then}" for label, (then, now) in pairs if then != now]
    moved = sorted(name for name in {*trained} & {*here} if trained.index(name) != here.index(name))
    if not differences and not moved:
        return
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    text = f"label {', '.join(differences[:_SHOWN])}{more}"
    if moved:
        raise ValueError(
            f"the data's labels are not those that {whose} was trained on, so its error would mean nothing: {text}. "
            "Give the classes their former names and order (folders of pictures are sorted by name), or train on these"
        )
    if not warn:
        return
    rank_zero_warn(
        f"the data's classes have other names than those that {whose} was trained on: {text}. If they are other "
        "classes, or in another order, the error means nothing"
    )
