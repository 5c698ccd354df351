"""The paper's protocol: train from scratch on all training data, for the number of epochs a run found best."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from adv_lightning.callbacks.stored_paths import found_again
from adv_lightning.cli.adversarial_cli import AdversarialCLI
from adv_lightning.methods.checkpoint_format import read_checkpoint
from adv_lightning.methods.checkpoint_kinds import COUNT, TEXT, Kind, check_kinds
from adv_lightning.methods.moved_paths import moved

_EPILOG = """\
Uses the run's config.yaml with these changes: data.val_size=0, trainer.max_epochs is the best epoch + 1 (epochs count
from 0), no limit on steps or time, no early stopping, and the last checkpoint is kept in place of the best. Further
--KEY VALUE arguments, as for fit, win over these: --seed_everything 1 for another seed. Source: Goodfellow et al.
2015, section 6.
"""


def refit(words: Sequence[str]) -> AdversarialCLI:
    """Run the command line after `refit`; see `refit_arguments`."""
    return AdversarialCLI(args=refit_arguments(words))


def refit_arguments(words: Sequence[str]) -> list[str]:
    """Return the arguments of `fit` that train a finished run again on all training data.

    Args:
        words: The command line after `refit`: `--run DIR`, and arguments of `fit` that win over the run's.

    Raises:
        SystemExit: the folder does not hold a finished run, or the run needs validation. The reason is printed,
            status 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m adv_lightning refit",
        description="Train from scratch on all training data, for as many epochs as a finished run found best.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--run", required=True, type=Path, help="folder of the run, such as lightning_logs/version_0")
    options, further = parser.parse_known_args(words)
    path = options.run / "config.yaml"
    if not path.is_file():
        near = " or ".join(_runs_near(options.run)) or "lightning_logs/version_0"
        raise _refusal(f"--run {options.run}: this folder has no config.yaml. Give the folder of a run, such as {near}")
    try:
        config = moved(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _refusal(f"{path} is not readable as YAML: {error}") from error
    if not _is_config(config):
        raise _refusal(f"{path} is not the configuration of a run, which maps names to settings")
    _check_data(path, config, further)
    _check_monitors(path, config, further)
    epochs = best_epoch(options.run) + 1
    print(
        f"refit: {options.run} was best in epoch {epochs - 1}; training from scratch for {epochs} epochs.",
        flush=True,
    )
    return [
        "fit",
        f"--config={path}",
        "--ckpt_path=null",
        "--data.val_size=0",
        f"--trainer.max_epochs={epochs}",
        "--trainer.min_epochs=null",
        "--trainer.max_steps=-1",
        "--trainer.min_steps=null",
        "--trainer.max_time=null",
        "--callbacks.early_stopping=null",
        "--callbacks.checkpoint.monitor=null",
        "--callbacks.checkpoint.save_last=true",
        *further,
    ]


def _is_config(config: Any) -> bool:
    """Whether what is read of a configuration is of the right kinds: mappings, with strings for class paths."""
    if not isinstance(config, dict):
        return False
    parts = [config.get(name) or {} for name in ("data", "model", "trainer")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    nested = [part.get("init_args") or {} for part in parts[:2]]
    if not all(isinstance(arguments, dict) for arguments in nested):
        return False
    roots = [arguments.get("root") for arguments in nested] + [parts[0].get("class_path")]
    return all(text is None or isinstance(text, str) for text in roots)


def best_epoch(run: Path) -> int:
    """Return the epoch, counted from 0, in which early stopping found its best figure, or the best checkpoint's.

    Raises:
        SystemExit: the run has neither, or a checkpoint is damaged.
    """
    folder = run / "checkpoints"
    last = folder / "last.ckpt"
    kept = [path for path in sorted(folder.glob("*.ckpt")) if path != last]
    if last.is_file():
        newest = _read(last)
        for state in _callback_states(newest):
            if state.get("best_epoch") is not None:
                return int(_checked(last, state, "best_epoch", COUNT))
    elif kept:
        # The newest checkpoint knows of all earlier ones.
        newest = max((_read(path) for path in kept), key=lambda checkpoint: checkpoint["global_step"])
    else:
        newest = {}
    for state in _callback_states(newest):
        if state.get("monitor") is not None and state.get("best_model_path"):
            path = Path(_checked(last if last.is_file() else folder, state, "best_model_path", TEXT))
            return int(_read(_moved(path, folder))["epoch"])
    # Checkpoints of weights alone hold no state of callbacks.
    if len(kept) == 1 and "callbacks" not in newest:
        return int(_read(kept[0])["epoch"])
    raise _refusal(
        f"--run {run}: the best epoch is unknown. refit needs checkpoints/last.ckpt of a run with early stopping that "
        "reached its start_epoch, or the checkpoint of the best epoch, checkpoints/best.ckpt"
    )


def _callback_states(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    return [state for state in (checkpoint.get("callbacks") or {}).values() if isinstance(state, dict)]


def _checked(path: Path, state: dict[str, Any], name: str, kind: Kind) -> Any:
    """Return a value of a callback's state in a file."""
    try:
        check_kinds(state, {name: kind}, "the state of a callback", path)
    except ValueError as error:
        raise _refusal(str(error)) from error
    return state[name]


def _moved(path: Path, folder: Path) -> Path:
    """Return where the checkpoint `path` is now: in `folder`, if a file of that name is there."""
    here = folder / path.name
    found = str(here) if here.is_file() else found_again(str(path), [folder])
    if not found:
        raise _refusal(f"the best checkpoint, {path.name}, is missing: it is neither in {folder} nor at {path}")
    return Path(found)


def _read(path: Path) -> dict[str, Any]:
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise _refusal(str(error)) from error
    if checkpoint.get("epoch") is None or checkpoint.get("global_step") is None:
        raise _refusal(f"{path} is not a checkpoint of a Lightning run: it has no epoch")
    return checkpoint


def _check_data(path: Path, config: dict[str, Any], further: Sequence[str]) -> None:
    """Refuse data that cannot give their validation images to training."""
    if any(word.startswith(("--data=", "--data.class_path")) or word == "--data" for word in further):
        return
    data = config.get("data") or {}
    kind, arguments = data.get("class_path") or "null", data.get("init_args") or {}
    if not kind.startswith("adv_lightning.data.") and "val_size" not in arguments:
        raise _refusal(
            f"{path}: data is {kind}, which has no argument val_size, so refit cannot use its validation examples for "
            "training. Add an argument val_size that may be 0, or run fit on all data with --trainer.max_epochs set to "
            "the number of epochs"
        )
    probe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    probe.add_argument("--data.root", "--data.init_args.root", dest="root", default=arguments.get("root"))
    root = probe.parse_known_args(further)[0].root
    if kind.endswith(".ImageFolderDataModule") and root is not None and Path(root, "val").is_dir():
        raise _refusal(
            f"{Path(root, 'val')} holds validation images, which refit cannot move to training. Copy the images of "
            f"{Path(root, 'val')} and {Path(root, 'train')} into one folder train of a new root, and give that root "
            "with --data.root"
        )


def _check_monitors(path: Path, config: dict[str, Any], further: Sequence[str]) -> None:
    """Refuse what waits for a validation figure: refit trains on all data."""
    model = (config.get("model") or {}).get("init_args") or {}
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    watchers = [
        ("model.lr_scheduler", "a scheduler that needs no validation", model.get("lr_scheduler")),
        *(
            ("trainer.callbacks", "callbacks that need no validation, or null", callback)
            for callback in (callbacks if isinstance(callbacks, list) else [callbacks])
        ),
    ]
    for key, other, watcher in watchers:
        names = (f"--{key}", f"--{key.replace('model.', 'model.init_args.')}")
        arguments = watcher.get("init_args") if isinstance(watcher, dict) else None
        arguments = arguments if isinstance(arguments, dict) else {}
        if not str(arguments.get("monitor")).startswith("val") or any(word.startswith(names) for word in further):
            continue
        raise _refusal(
            f"{path}: {key} has {watcher.get('class_path')}, which monitors {arguments['monitor']}, but refit has no "
            f"validation. Give {other}, with --{key}, or run fit"
        )


def _runs_near(place: Path) -> list[str]:
    """Return the folders of at most five runs near `place`: in it, or else in the folders above."""
    for base in (place, *list(place.parents)[:2]):
        runs = [base, *base.glob("version_*"), *base.glob("lightning_logs/version_*")]
        runs = [run for run in runs if (run / "config.yaml").is_file()]
        if runs:
            return [str(run) for run in sorted(runs, key=lambda run: run.stat().st_mtime)[-5:]]
    return []


def _refusal(reason: str) -> SystemExit:
    sys.stderr.write(f"error: {reason}\n")
    return SystemExit(2)
