"""The record of an evaluation: its results with everything needed to interpret them."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer

from adv_lightning import __version__
from adv_lightning.attacks.description import class_path
from adv_lightning.attacks.plain_values import imported, jsonable
from adv_lightning.data.atomic_write import write_atomically
from adv_lightning.data.seeding import process_seed
from adv_lightning.evaluation.tables import mode
from adv_lightning.methods.checkpoint_format import read_checkpoint
from adv_lightning.methods.moved_paths import moved
from adv_lightning.module import AdversarialModule


def evaluation_record(
    trainer: Trainer, module: AdversarialModule, stage: str, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the results in `rows` with model, data, seed, epochs, training time, machine and versions.

    Args:
        trainer: The trainer of the evaluation.
        module: The judged module.
        stage: "test" or "val", the key of the rows.
        rows: The results.
    """
    training = _training(trainer)
    return {
        stage: rows,
        # Logged by the module and callbacks.
        "logged": {name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
        "training": training,
        "seed": training["seed"],
        "model": dict(module.hparams),
        **circumstances(trainer, module),
    }


def circumstances(trainer: Trainer, module: AdversarialModule) -> dict[str, Any]:
    """Return mode, data, precision, processes, machine and versions of an evaluation."""
    datamodule = getattr(trainer, "datamodule", None)
    return {
        "mode": mode(module),
        "data": {"class_path": class_path(type(datamodule)), **getattr(datamodule, "hparams", {})}
        if datamodule
        else None,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "hardware": {
            "accelerator": type(trainer.accelerator).__name__,
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version(), "adv_lightning": __version__, **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "lightning", "torchvision")}
    for name in ("torchattacks", "foolbox"):
        with suppress(PackageNotFoundError):  # extras
            found[name] = version(name)
    return found


def write_json(record: dict[str, Any], directory: str | Path, name: str) -> None:
    """Write `record` to `directory`/`name` as JSON, whole or not at all.

    NaN and infinity become null, numbers of numpy and torch Python's, a path its text, an Enum its name.
    """
    text = json.dumps(jsonable(record), indent=2, allow_nan=False)
    write_atomically(Path(directory) / name, f"{text}\n".encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _training(trainer: Trainer) -> dict[str, Any]:
    """Return how the judged network was trained, from its checkpoint, or from this process without one."""
    seed = process_seed()
    path = trainer.ckpt_path
    if path is None or not Path(path).is_file():
        return {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds": None,
            "seed": seed,
            "checkpoint": None,
            "checkpoint_sha256": None,
            "callbacks": None,
        }
    checkpoint = read_checkpoint(path)
    timer = checkpoint.get("callbacks", {}).get("Timer", {})
    # checkpoint["epoch"] counts from 0 if written during fit, and from 1 if written after it.
    epochs: Any = checkpoint.get("loops")
    for key in ("fit_loop", "epoch_progress", "current", "ready"):
        epochs = epochs.get(key) if isinstance(epochs, dict) else None
    return {
        "epochs": epochs,
        "steps": checkpoint.get("global_step"),
        "seconds": timer.get("time_elapsed", {}).get("train"),
        "seed": checkpoint.get("adv_lightning_seed", seed),
        "checkpoint": Path(path).name,
        "checkpoint_sha256": sha256(Path(path)),
        "callbacks": changing_callbacks(Path(path), checkpoint.get("global_step")),
    }


def changing_callbacks(checkpoint: Path, step: int | None = None) -> dict[str, Any] | None:
    """Return the callbacks that changed training, from the run's config.yaml; None if the checkpoint is in no run.

    A run that went on with other settings keeps the former ones as config_until_step_N.yaml.

    Args:
        checkpoint: Its path.
        step: The checkpoint's number of steps.
    """
    run = checkpoint.parent.parent
    until = {path.stem.rpartition("_")[2]: path for path in run.glob("config_until_step_*.yaml")}
    later = [int(number) for number in until if number.isdigit() and int(number) >= (step or 0)]
    config = until[str(min(later))] if later and step is not None else run / "config.yaml"
    if checkpoint.parent.name != "checkpoints" or not config.is_file():
        return None
    try:
        named = yaml.safe_load(config.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return None
    named = named.get("callbacks") if isinstance(named, dict) else None
    if not isinstance(named, dict):
        return None
    return {name: value for name, value in moved(named).items() if value is not None and _changes_training(value)}


def _changes_training(description: Any) -> bool:
    """Whether a callback changes training, as its class says; one that is not imported is assumed to.

    Nothing is imported for it: a config.yaml beside a checkpoint may be another's.
    """
    path = description.get("class_path") if isinstance(description, dict) else description
    return bool(getattr(imported(str(path)), "changes_training", True))
