"""The checkpoints that another one names: data from a file, which may name anything."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from adv_lightning.methods.checkpoint_format import read_checkpoint
from adv_lightning.methods.checkpoint_kinds import SCORE, TEXT, mapping, optional

BEST = {
    "best_k_models": optional(mapping(SCORE)),
    "best_model_path": optional(TEXT),
    "last_model_path": optional(TEXT),
    "best_model_score": optional(SCORE),
    "current_score": optional(SCORE),
    "judged_on": optional(TEXT),
    "judged_examples": optional(TEXT),
    "run": optional(TEXT),
}
"""What is read of the state of Lightning's ModelCheckpoint, and of this package's."""


def is_inside(path: str | Path, folder: str | Path | None) -> bool:
    """Whether a path leads to a place below a folder, with `..` and links followed.

    Args:
        path: The path of a file that need not exist, or an address such as s3://...
        folder: None or "": there is no such place.
    """
    if not folder:
        return False
    if "://" in str(path) or "://" in str(folder):
        return str(path).startswith(f"{folder}/") and ".." not in str(path).split("/")
    try:
        return Path(folder).resolve() in Path(path).resolve().parents
    except (OSError, ValueError, RuntimeError):  # no path at all, such as one with a null byte, or a loop of links
        return False


def found_again(path: str, folders: Iterable[str | Path | None]) -> str:
    """Return where a stored checkpoint is now, or "" if it is not there any more.

    That is for reading it. What may be removed or replaced is for `is_inside` to say.

    Args:
        path: As a checkpoint holds it. An address is taken only if it lies in one of the folders.
        folders: Where a file of its name is looked for if the path leads to none, because its folder was moved. None
            where there is no such folder.
    """
    known = [str(folder) for folder in folders if folder]
    if "://" in path:
        return path if any(is_inside(path, folder) for folder in known) else ""
    if _is_file(path):
        return path
    here = [os.path.join(folder, os.path.basename(path)) for folder in known if os.path.basename(path)]
    return next(filter(_is_file, here), "")


def stored_paths(state: Mapping[str, Any]) -> list[str]:
    """Return the paths in the state of a ModelCheckpoint."""
    named = [state.get(key) or "" for key in ("best_model_path", "last_model_path")]
    return [*(state.get("best_k_models") or {}), *named]


def with_paths(state: Mapping[str, Any], now: Mapping[str, str], *, smallest: bool, kept: int) -> dict[str, Any]:
    """Return the state of a ModelCheckpoint with the paths of today.

    Which is the best and which the worst follows from the scores, whatever the state says of that.

    Args:
        state: Of the kinds in `BEST`.
        now: Where each path leads today; "" for a checkpoint that is gone.
        smallest: Whether the smallest score is the best.
        kept: As `save_top_k`: how many are kept. -1: all.
    """
    scores = {now[path]: score for path, score in (state.get("best_k_models") or {}).items() if now[path]}
    ranked = sorted(scores, key=lambda path: float(scores[path]), reverse=not smallest)
    best = ranked if kept < 0 else ranked[:kept]
    models = {path: score for path, score in scores.items() if path in best}
    found = {
        "best_k_models": models,
        "best_model_path": ranked[0] if ranked else now[state.get("best_model_path") or ""],
        "best_model_score": scores[ranked[0]] if ranked else state.get("best_model_score"),
        "last_model_path": now[state.get("last_model_path") or ""],
        "kth_best_model_path": "",
    }
    if not models or len(models) < kept:
        return found
    worst = (max if smallest else min)(
        models, key=lambda path: float(models[path])
    )  # of equals the first, as Lightning
    return {**found, "kth_best_model_path": worst, "kth_value": models[worst]}


def is_same(path: str | Path, other: str | Path | None) -> bool:
    """Whether two paths lead to the same place."""
    try:
        return other is not None and Path(path).resolve() == Path(other).resolve()
    except (OSError, ValueError, RuntimeError):
        return False


def run_mark(run: str | Path | None, folder: str | Path | None) -> str:
    """Return what a checkpoint in a folder says of the run that wrote it: the way to the run's own folder.

    The way from one to the other is the same wherever both are moved.
    """
    if not run or not folder or "://" in f"{run}{folder}":
        return str(run or "")
    return os.path.relpath(Path(run).resolve(), Path(folder).resolve())


def is_of_run(path: str | Path, marks: Container[str]) -> bool:
    """Whether a file is a checkpoint that the run of one of these marks wrote, by what it holds."""
    try:
        states = read_checkpoint(path).get("callbacks", {}).values()
    except (OSError, ValueError):
        return False
    found = [state.get("run") for state in states if isinstance(state, Mapping)]
    return any(isinstance(mark, str) and mark in marks for mark in found)


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
