"""Trainings that are ended from outside at random moments, continued, and compared with one that was not.

`python -m tests.support.kills FOLDER PROCESSES SEED KIND...` prints a line for each kind of end: whether the continued
training ended with the same last and best checkpoint, bit by bit, and the same curves. Imports are paid for once: each
training is a fork of this process.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adv_lightning.callbacks.checkpoint_io import WholeCheckpointIO
from adv_lightning.cli import main
from tests.support.forks import LIMIT, ended, fork

CONFIG = """
seed_everything: 7
model:
  backbone:
    class_path: MaxoutMLP
    init_args: {units: 24, pieces: 2, input_dropout: 0.2, dropout: 0.5}
  attack:
    class_path: FGSM
    init_args: {eps: 0.1}
  masks: fresh
  optimizer:
    class_path: torch.optim.SGD
    init_args: {lr: 0.1, momentum: 0.5}
  lr_scheduler:
    class_path: torch.optim.lr_scheduler.ExponentialLR
    init_args: {gamma: 0.999}
  lr_interval: step
data:
  class_path: DigitsDataModule
  init_args: {batch_size: 32}
trainer:
  accelerator: cpu
  max_epochs: 3
  log_every_n_steps: 4
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: tests.support.kills.Started
callbacks:
  early_stopping: {patience: 4}
  checkpoint: {last_every_n_steps: 7}
  max_norm: {max_norm: 1.5}
  momentum: {start: 0.5, end: 0.9, epochs: 6}
  noise:
    class_path: InputNoise
    init_args:
      noise: {class_path: UniformNoise, init_args: {eps: 0.1}}
      compare_every_n_steps: 3
  rubbish: {}
"""
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


class Started(Callback):
    """Says that the training steps begin, by an empty file beside the run's."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(trainer.default_root_dir, "started").touch()


class KilledWhileWriting(WholeCheckpointIO):
    """Ends its process, as kill -9 does, in the middle of the n-th checkpoint that it writes."""

    def __init__(self, number: int, share: float) -> None:
        self.number = number
        self.share = share

    @contextmanager
    def opened(self, path: Path) -> Iterator[Any]:
        self.number -= 1
        with super().opened(path) as file:
            yield file if self.number else _Cut(file, int(self.share * 100_000))


class KilledAfterWriting(WholeCheckpointIO):
    """Ends its process, as kill -9 does, when the n-th checkpoint that it writes is in its place."""

    def __init__(self, number: int) -> None:
        self.number = number

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        super().save_checkpoint(checkpoint, path, storage_options)
        self.number -= 1
        if not self.number:
            os.kill(os.getpid(), signal.SIGKILL)


class _Cut:
    """A file that ends its process after so many bytes."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self.file, self.left = file, left

    def write(self, data: Any) -> int:
        whole = bytes(data)
        self.file.write(whole[: self.left])
        self.left -= len(whole)
        if self.left <= 0:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def start(root: Path, processes: int, words: Sequence[str]) -> list[int]:
    """Start a training in `root` as so many forks of this process; return their numbers."""
    root.mkdir(exist_ok=True)
    (root / "started").unlink(missing_ok=True)
    several = [f"--trainer.devices={processes}", "--trainer.strategy=ddp"] if processes > 1 else []
    return fork(root, processes, lambda: main(["fit", *words, *several, f"--trainer.default_root_dir={root}"]))


def interrupted(root: Path, processes: int, kind: str, moment: float, seconds: float, config: str) -> list[int]:
    """Train in `root` until the end that `kind` says, at `moment` in [0, 1) of a whole training's `seconds`."""
    words = [f"--config={config}"]
    if kind in ("writing", "written"):
        name, share = ("KilledWhileWriting", f", share: {moment}") if kind == "writing" else ("KilledAfterWriting", "")
        arguments = f"{{number: {2 + int(moment * 12)}{share}}}"
        plugin = f"{{class_path: tests.support.kills.{name}, init_args: {arguments}}}"
        return ended(start(root, processes, [*words, f"--trainer.plugins=[{plugin}]"]))
    pids = start(root, processes, words)
    until = time.monotonic() + LIMIT
    while not (root / "started").exists() and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(moment * seconds)
    victims = pids if kind != "rank" else [pids[int(moment * 1e6) % processes]]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGNALS.get(kind, signal.SIGKILL))
    return ended(pids)


def _newest(root: Path) -> Path:
    return max(root.glob("lightning_logs/version_*"), key=lambda path: int(path.name.split("_")[1]))


def continued_from(root: Path) -> int | None:
    """Return the number of steps in the last checkpoint of a training that was ended; None if there is none."""
    path = _newest(root) / "checkpoints" / "last.ckpt" if (root / "lightning_logs").is_dir() else Path()
    return int(torch.load(path, weights_only=True)["global_step"]) if path.is_file() else None


def outcome(root: Path) -> dict[str, Any]:
    """Return what a training left: its last and best checkpoint and its curves, without times and places."""
    run = _newest(root)
    kept = {path.name: torch.load(path, weights_only=True) for path in sorted((run / "checkpoints").iterdir())}
    for checkpoint in kept.values():
        checkpoint["callbacks"].pop("Timer")
    return _placeless({"kept": kept, "curves": _curves(run)}, str(root))


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    # TensorBoard itself leaves out what a killed run logged after the checkpoint that it went on from.
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _without_point(outcome: dict[str, Any], steps: int | None) -> dict[str, Any]:
    """Leave out the points that Lightning logs after the checkpoint of so many steps: a kill in between loses them."""
    curves = {tag: [each for each in points if each[0] + 1 != steps] for tag, points in outcome["curves"].items()}
    return outcome | {"curves": curves}


def _placeless(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {_placeless(key, root): _placeless(each, root) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_placeless(each, root) for each in value]
    return value.replace(root, "ROOT") if isinstance(value, str) else value


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Return where two outcomes differ, bit by bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        odd = [f"{where}.{key} is in one only" for key in a.keys() ^ b.keys()]
        return odd + [found for key in a.keys() & b.keys() for found in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in differences(x, y, f"{where}[{i}]")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [f"{where}: tensors differ"]
    return [] if type(a) is type(b) and (a == b or a != a != b) else [f"{where}: {str(a)[:80]} and {str(b)[:80]}"]


def run(folder: Path, processes: int, seed: int, kinds: Sequence[str]) -> list[str]:
    """Return a line for each kind of end, which begins with "same" or "different"."""
    config = folder / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    whole = folder / "whole"
    pids = start(whole, processes, [f"--config={config}"])
    while not (whole / "started").exists():
        time.sleep(0.002)
    began = time.monotonic()
    assert ended(pids) == [0] * processes, (whole / "0.log").read_text(encoding="utf-8")[-3000:]
    seconds = time.monotonic() - began
    reference = outcome(whole)
    draw = random.Random(seed)
    lines = []
    for number, kind in enumerate(kinds):
        moment, root = draw.random(), folder / str(number)
        while not any(codes := interrupted(root, processes, kind, moment, seconds, str(config))):
            shutil.rmtree(root)  # it was over before, on a machine that is faster now
            moment /= 2
        steps = continued_from(root)
        words = ["--ckpt_path=last", "--trainer.plugins=null"]
        again = ended(start(root, processes, [f"--config={config}", *words]))
        ends = ["it does not end well"] if any(again) else []
        found = ends or differences(*(_without_point(each, steps) for each in (reference, outcome(root))))
        left = [path.name for path in root.rglob("*.partial")]
        found += [f"{left} left"] if left else []
        lines.append(f"{'different' if found else 'same'}: {kind} at {moment:.3f}, statuses {codes}; {found[:5]}")
        print(lines[-1], flush=True)
        if not found:
            shutil.rmtree(root)
    return lines


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
