"""The folders of runs: one for each, found again, and held by one process at a time."""

from __future__ import annotations

import shutil
from collections.abc import Container
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

from adv_lightning.words import value_of

CONFIG = "config.yaml"
_LOGS = "lightning_logs"
_NOT_ELSEWHERE = {"None", "null", "True", "true", "False", "false"}
"""What leaves a run's checkpoints in the folder where the default logger puts them."""


class RunLogger(TensorBoardLogger):
    """TensorBoard's logger, in a folder `version_N` that no run takes which starts at the same moment."""

    def _get_next_version(self) -> int:
        while True:
            version = super()._get_next_version()
            if getattr(rank_zero_only, "rank", 0):
                return version
            try:
                Path(self.root_dir, f"version_{version}").mkdir(parents=True)
            except FileExistsError:
                if not Path(self.root_dir).is_dir():
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
        resumed_at: Step at which the run goes on in its folder. None: it starts there.
        **kwargs: Further ones.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, resumed_at: int | None = None, **kwargs: Any
    ):
        super().__init__(parser, config, overwrite=resumed_at is not None, **kwargs)
        self.resumed_at = resumed_at
        self._lock: FileLock | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir  # all processes take part in asking
        if folder is not None and stage == "fit" and trainer.is_global_zero and not self.already_saved:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._lock = hold(folder)
            self._keep(Path(folder, self.config_filename))
        super().setup(trainer, pl_module, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._lock is not None:
            self._lock.release()

    def _keep(self, former: Path) -> None:
        """Keep the settings from before, if they differ."""
        if self.resumed_at is None or not former.is_file():
            return
        now = self.parser.dump(self.config, skip_none=False)
        if _settings(former.read_text(encoding="utf-8")) != _settings(now):
            shutil.copy2(former, former.with_name(f"{former.stem}_until_step_{self.resumed_at}.yaml"))


def _settings(text: str) -> Any:
    content = yaml.safe_load(text)
    return {key: value for key, value in content.items() if key != "ckpt_path"}


def resolved(words: list[str], commands: Container[str]) -> tuple[list[str], Path | None]:
    """Put the checkpoint that "last" or "best" means, of the newest run, in the place of that word.

    A fit from the last goes on in the run's folder, with the run's settings below those that are given; where there is
    no run yet, it starts one.

    Args:
        words: A command line.
        commands: Those that take a checkpoint.

    Returns:
        The command line, and the folder of the run that goes on, None where none does.

    Raises:
        ValueError: no run has that checkpoint.
    """
    word, command = value_of(words, "ckpt_path"), next(iter(words), "")
    places = {str(value_of(words, key)) for key in ("callbacks.checkpoint.dirpath", "trainer.logger")}
    if word not in ("best", "last") or command not in commands or not places <= _NOT_ELSEWHERE:
        return words, None
    logs = Path(value_of(words, "trainer.default_root_dir") or ".", _LOGS)
    path = max(logs.glob(f"version_*/checkpoints/{word}*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    resuming = command == "fit" and word == "last"
    if path is None and resuming:
        # Not an error, so that one command starts a job and goes on with it.
        rank_zero_info(f"There is no last.ckpt of a run in {logs}: training starts.")
        return [*words, "--ckpt_path=null"], None
    if path is None:
        raise ValueError(
            f"--ckpt_path={word}: no run in {logs} has a {word}.ckpt; name the folder of its {_LOGS} with "
            "--trainer.default_root_dir, or give the checkpoint's path"
        )
    rank_zero_info(f"--ckpt_path={word} is {path}")
    words = [*words, f"--ckpt_path={path}"]
    if not resuming:
        return words, None
    run = path.parents[1]
    settings = [f"--config={run / CONFIG}"] if (run / CONFIG).is_file() else []
    return [command, *settings, *words[1:]], run


def hold(run: str | Path) -> FileLock | None:
    """Hold a run's folder until this process ends, or the lock is released; None where the file system has no locks.

    Raises:
        ValueError: another process trains there.
    """
    lock = FileLock(Path(run, ".training.lock"))
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
