"""The folders of runs: one for each, found again, and held by one process at a time."""

from __future__ import annotations

import shutil
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from adv_lightning.cli.words import value_of

CONFIG = "config.yaml"
_LOCK = ".training.lock"
_LOGS = "lightning_logs"
_KNOWN_LOGGERS = ("CSVLogger", "TensorBoardLogger")
"""Loggers that make folders as the default one does."""


class RunLogger(TensorBoardLogger):
    """TensorBoard's logger, in a folder `version_N` that no run takes which starts at the same moment."""

    def _get_next_version(self) -> int:
        while True:
            version = super()._get_next_version()
            if getattr(rank_zero_only, "rank", 0) or "://" in self.root_dir:
                return version
            folder = Path(self.root_dir, f"version_{version}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if not folder.is_dir():
                    raise
            else:
                return version

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if status == "failed":
            # A run that failed before it wrote anything leaves no folder.
            with suppress(OSError):
                Path(self.log_dir).rmdir()
                Path(self.root_dir).rmdir()


class RunConfig(SaveConfigCallback):
    """Holds a run's folder while it trains, and writes its `config.yaml`.

    Where a run goes on in its folder with other settings, those from before are kept as `config_until_step_N.yaml`.

    Args:
        parser: As for Lightning's SaveConfigCallback, like what follows.
        config: The settings.
        ckpt_path: The checkpoint that this process goes on from, which must be the first process's.
        resumed_at: Step at which the run goes on in its folder. None: it starts there.
        **kwargs: Further ones.

    Raises:
        ValueError: in setup, another process trains in the folder, or processes found different checkpoints.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        ckpt_path: str | None = None,
        resumed_at: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(parser, config, **kwargs)
        self.ckpt_path = ckpt_path
        self.resumed_at = resumed_at
        self._lock: FileLock | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir  # all processes take part in asking
        if stage == "fit" and not self.already_saved:
            first = trainer.strategy.broadcast(self.ckpt_path)
            if first != self.ckpt_path:
                raise ValueError(
                    f"process {trainer.global_rank} would go on from {self.ckpt_path}, and the first one from {first}: "
                    "give the checkpoint's path in place of a word"
                )
            if folder is not None and "://" not in folder and trainer.is_global_zero:
                Path(folder).mkdir(parents=True, exist_ok=True)
                self._lock = hold(folder)
        if self.resumed_at is None:
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the settings of a run that goes on; only now is it known that they suit its checkpoint."""
        folder = trainer.log_dir
        if self.resumed_at is None or folder is None or not trainer.is_global_zero:
            return
        path, config = Path(folder, self.config_filename), self.config.clone()
        config["ckpt_path"] = None  # it is what trains such a run, from its beginning
        now = self.parser.dump(config, skip_none=False)
        kept = path.with_name(f"{path.stem}_until_step_{self.resumed_at}.yaml")
        former = path.read_text(encoding="utf-8") if path.is_file() else now
        if _settings(former) == _settings(now):
            return
        if not kept.exists():  # else it holds those that the steps until then were made with
            shutil.copy2(path, kept)
        partial = path.with_suffix(".partial")
        partial.write_text(now, encoding="utf-8")
        partial.replace(path)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._lock is not None:
            self._lock.release()


def _settings(text: str) -> Any:
    content = yaml.safe_load(text)
    return {key: value for key, value in content.items() if key != "ckpt_path"}


def resolved(words: list[str], commands: Container[str]) -> tuple[list[str], Path | None]:
    """Put the checkpoint that "last" or "best" means, of the newest run, in the place of that word.

    A fit from the last goes on in the run's folder, with the run's settings below those that are given; where there is
    no run yet, or the newest one has no checkpoint, it starts one.

    Args:
        words: A command line.
        commands: Those that take a checkpoint.

    Returns:
        The command line, and the folder of the run that goes on, None where none does.

    Raises:
        ValueError: the newest run does not have that checkpoint, or a logger is named whose folders are not known.
    """
    word, command = value_of(words, "ckpt_path"), next(iter(words), "")
    if word not in ("best", "last") or command not in commands:
        return words, None
    logger = _named(words, "trainer.logger")
    if logger is not None and logger.rpartition(".")[2] not in _KNOWN_LOGGERS:
        raise ValueError(f"--ckpt_path={word}: where {logger} keeps its runs is not known; give the checkpoint's path")
    saved = None if logger is None else _given(words, "trainer.logger", "save_dir")
    logs = Path(saved or value_of(words, "trainer.default_root_dir") or ".", _LOGS)
    run = _newest(logs)
    settings = [] if run is None or not (run / CONFIG).is_file() else [f"--config={run / CONFIG}"]
    dirpath = _given([*settings, *words], "callbacks.checkpoint", "dirpath")
    folder = Path(dirpath) if dirpath else (run or logs) / "checkpoints"
    path = _written_last(folder, word)
    resuming = command == "fit" and word == "last"
    if path is None and resuming:
        # Not an error, so that one command starts a job and goes on with it.
        rank_zero_info(f"--ckpt_path=last: there is no {folder / 'last.ckpt'}, so a new run starts.")
        return [*words, "--ckpt_path=null"], None
    if path is None:
        raise ValueError(
            f"--ckpt_path={word}: there is no {folder / word}.ckpt of a newest run; name the folder of its {_LOGS} "
            "with --trainer.default_root_dir, or give the checkpoint's path"
        )
    rank_zero_info(f"--ckpt_path={word} is {path}")
    words = [*words, f"--ckpt_path={path}"]
    if not resuming:
        return words, None
    # A logger that is named makes a folder anew.
    return [command, *settings, *words[1:]], None if logger else run


def newest(root: str | Path, name: str) -> Path | None:
    """Return the checkpoint `name`, "best" or "last", of the training below `root` started last, if it has one."""
    run = _newest(Path(root, _LOGS))
    return None if run is None else _written_last(run / "checkpoints", name)


def _written_last(folder: Path, name: str) -> Path | None:
    return max(folder.glob(f"{name}*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)


def _newest(logs: Path) -> Path | None:
    """Return the folder of the training that was started last of all."""
    started = [run for run in logs.glob("version_*") if (run / _LOCK).exists() or (run / "checkpoints").is_dir()]
    numbered = [run for run in started if run.name.partition("_")[2].isdigit()]
    return max(numbered, key=lambda run: int(run.name.partition("_")[2]), default=None)


def _named(words: Sequence[str], key: str) -> str | None:
    """Return the class that is named for a key, None where there is none."""
    value = value_of(words, key)
    value = value.get("class_path") if isinstance(value, dict) else value
    return None if str(value).lower() in ("none", "null", "true", "false") else str(value)


def _given(words: Sequence[str], key: str, argument: str) -> str | None:
    """Return an argument of the class at a key, in the short form or the long one."""
    value = value_of(words, f"{key}.{argument}") or value_of(words, f"{key}.init_args.{argument}")
    return None if value in (None, "null") else str(value)


def hold(run: str | Path) -> FileLock | None:
    """Hold a run's folder until this process ends, or the lock is released; None where the file system has no locks.

    Raises:
        ValueError: another process trains there.
    """
    lock = FileLock(Path(run, _LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{run}: another process trains there: wait until it ends, or name a checkpoint, --ckpt_path PATH, to go "
            "on from it in a folder of its own"
        ) from None
    except (OSError, NotImplementedError):
        return None
    return lock
