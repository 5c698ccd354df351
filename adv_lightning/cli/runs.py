"""The folder of a run: a new one for each, held by one process at a time, with the run's settings."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from jsonargparse import Namespace
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from adv_lightning.callbacks.run_folder import run_folder
from adv_lightning.cli.parser import today
from adv_lightning.data.atomic_write import write_atomically

CONFIG = "config.yaml"
LOCK = ".training.lock"
LOGS = "lightning_logs"


class RunLogger(TensorBoardLogger):
    """TensorBoard's logger, in a folder `version_N` that no other run takes, even one that starts at the same time.

    Args:
        save_dir: Folder of the folders of runs.
        version: Number or name of a run's folder. None: a new folder.
        **kwargs: As for Lightning's TensorBoardLogger.
    """

    def __init__(self, save_dir: str | Path, version: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(save_dir, version=version, **kwargs)
        self._taken = version

    @property
    def version(self) -> int | str:
        """The run's number, or the name of its folder."""
        if self._taken is None:
            if int(getattr(rank_zero_only, "rank", 0)) > 0 or "://" in self.root_dir:
                return super().version
            self._taken = _take_folder(Path(self.root_dir))
        return self._taken

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if status == "failed":
            # A run that failed before it wrote anything leaves no folder.
            with suppress(OSError):
                Path(self.log_dir).rmdir()
                Path(self.root_dir).rmdir()


def _take_folder(root: Path) -> int:
    """Make the folder of the next version in `root`, and return the version."""
    while True:
        numbers = [path.name.removeprefix("version_") for path in root.glob("version_*") if path.is_dir()]
        version = max((int(number) for number in numbers if number.isdigit()), default=-1) + 1
        folder = root / f"version_{version}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir():
                raise
        else:
            return version


class RunConfig(SaveConfigCallback):
    """Holds a run's folder during training, and writes its `config.yaml`.

    If a run continues in its folder with other settings, the previous ones are kept as `config_until_step_N.yaml`.

    Args:
        parser: As for Lightning's SaveConfigCallback.
        config: The settings.
        ckpt_path: The checkpoint that this process continues from. It must be the first process's.
        resumed_at: Step at which the run continues in its folder. None: it starts there.
        **kwargs: As for Lightning's SaveConfigCallback.

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
        folder = run_folder(trainer)  # every process must ask
        if stage == "fit" and not self.already_saved:
            first = trainer.strategy.broadcast(self.ckpt_path)
            if first != self.ckpt_path:
                raise ValueError(
                    f"process {trainer.global_rank} would continue from {self.ckpt_path}, but the first process from "
                    f"{first}. Give the path of a checkpoint to --ckpt_path"
                )
            if folder is not None and "://" not in folder and trainer.is_global_zero:
                Path(folder).mkdir(parents=True, exist_ok=True)
                self._lock = hold(folder)
        if self.resumed_at is None:
            self._save(trainer, folder)
            # For some loggers Lightning would take the current folder.
            self.save_to_log_dir = False
            super().setup(trainer, pl_module, stage)

    def _save(self, trainer: Trainer, folder: str | None) -> None:
        """Write the settings of a new run.

        Raises:
            ValueError: the folder holds the settings of another run.
        """
        if self.already_saved or not self.save_to_log_dir or folder is None:
            return
        path, fs = f"{folder}/{self.config_filename}", get_filesystem(folder)
        taken = trainer.strategy.broadcast(trainer.is_global_zero and not self.overwrite and fs.isfile(path))
        if taken:
            raise ValueError(
                f"{path} is there already, from another run. Give the logger another version, or remove the file"
            )
        if trainer.is_global_zero:
            fs.makedirs(folder, exist_ok=True)
            self.parser.save(self.config, path, skip_none=False, overwrite=self.overwrite, multifile=self.multifile)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the settings of a run that continues: only now is it certain that they fit its checkpoint."""
        folder = run_folder(trainer)
        if self.resumed_at is None or folder is None or not trainer.is_global_zero:
            return
        path, config = Path(folder, self.config_filename), self.config.clone()
        config["ckpt_path"] = None  # these settings train the run from its start
        now = self.parser.dump(config, skip_none=False)
        kept = path.with_name(f"{path.stem}_until_step_{self.resumed_at}.yaml")
        former = path.read_text(encoding="utf-8") if path.is_file() else now
        if _settings(today(former)) == _settings(now):
            return
        if not (kept.exists() or kept.is_symlink()):  # else it holds the settings of the steps until then
            shutil.copy2(path, kept)
        write_atomically(path, now.encode())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._lock is not None:
            self._lock.release()


def _settings(text: str) -> Any:
    content = yaml.safe_load(text)
    return {key: value for key, value in content.items() if key != "ckpt_path"}


def writes_to(trainer: Trainer) -> str | None:
    """Return the folder of a trainer's runs; None if it writes nothing, or not on this machine."""
    if trainer.fast_dev_run or not (trainer.loggers or trainer.checkpoint_callbacks):  # type: ignore[attr-defined]
        return None
    folder = str((trainer.logger and trainer.logger.save_dir) or trainer.default_root_dir)
    return None if "://" in folder else folder


def hold(run: str | Path) -> FileLock | None:
    """Hold a run's folder until this process ends, or the lock is released. None: the file system has no locks.

    Raises:
        ValueError: another process trains in the folder.
    """
    lock = FileLock(Path(run, LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{run}: another process trains in this folder. Wait until it ends, or continue in a new folder from a "
            "checkpoint that you name: --ckpt_path PATH"
        ) from None
    except (OSError, NotImplementedError):
        return None
    return lock
