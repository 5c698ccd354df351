"""Checkpoints are written completely or not at all, and reading one runs no code."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule, CheckpointEnsemble, WholeCheckpointIO
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.cli.defaults import default_plugins
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.evaluation.transferred_attack import Transferred
from adv_lightning.methods.checkpoint_format import read_checkpoint
from tests.conftest import ROOT
from tests.support.helpers import mlp, quiet_trainer

STORED = ROOT / "tests" / "support" / "stored" / "format_1.ckpt"
DIGITS = f"--config={ROOT / 'configs' / 'digits.yaml'}"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


# Writing


def test_writes_and_reads(tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.arange(5.0)}, "epoch": 3}
    path = tmp_path / "new" / "a.ckpt"
    WholeCheckpointIO().save_checkpoint(content, path)
    found = WholeCheckpointIO().load_checkpoint(path)
    assert torch.equal(found["state_dict"]["w"], torch.arange(5.0))
    assert found["epoch"] == 3
    assert [each.name for each in path.parent.iterdir()] == ["a.ckpt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk_keeps_the_former_checkpoint(small_disk: Path) -> None:
    path = small_disk / "a.ckpt"
    WholeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(10)}}, path)
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"a\.ckpt \(No space left on device\).*former checkpoint.*--ckpt_path=last"):
        WholeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, path)
    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]


def test_full_disk_ends_training_with_one_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [DIGITS, *QUIET, f"--trainer.default_root_dir={small_disk}", "--trainer.limit_train_batches=2"]
    words += ["--trainer.log_every_n_steps=1", "--callbacks.pictures=null"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *words])  # a checkpoint of this network takes 500 kB
    assert stopped.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert re.search(r"best\.ckpt \(No space left on device\).*no earlier checkpoint", line)
    assert list(small_disk.rglob("*.ckpt*")) == []


def test_command_line_uses_it_unless_given_another(tmp_path: Path) -> None:
    environment = LightningEnvironment()
    for given in (None, environment, [environment]):
        *others, writer = default_plugins(given)
        assert others == ([] if given is None else [environment])
        assert isinstance(writer, WholeCheckpointIO)
    words = [DIGITS, *QUIET, f"--trainer.default_root_dir={tmp_path}", "--trainer.fast_dev_run=true"]
    words += ["--test_after_fit=false", "--trainer.plugins=lightning.pytorch.plugins.AsyncCheckpointIO"]
    assert not isinstance(main(["fit", *words]).trainer.strategy.checkpoint_io, WholeCheckpointIO)


# Reading


def damaged(tmp_path: Path) -> dict[str, Path]:
    whole = STORED.read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "foreign": b"P6 2 2 255 not a checkpoint at all",
        "weights": None,
    }
    for name, content in contents.items():
        if content is None:
            torch.save(mlp().state_dict(), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


@pytest.mark.parametrize("name", ["empty", "cut", "foreign", "weights"])
def test_refuses_damaged_files_by_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged(tmp_path)[name]
    with pytest.raises(ValueError, match=rf"{name} is not a checkpoint"):
        WholeCheckpointIO().load_checkpoint(path)
    if name != "weights":
        with pytest.raises(ValueError, match=rf"{name} is not a checkpoint"):
            AdversarialModule.load_from_checkpoint(path)
    with pytest.raises(SystemExit):
        main(["test", f"--ckpt_path={path}", *QUIET])
    assert f"{path} is not a checkpoint" in capsys.readouterr().err


class Evil:
    """Writes a file when its pickle is loaded unsafely."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def python_fit(path: Path) -> None:
    quiet_trainer().fit(
        AdversarialModule(mlp(), None), datamodule=DigitsDataModule(), ckpt_path=path, weights_only=None
    )


def with_plugin(path: Path) -> None:
    trainer: Trainer = quiet_trainer(plugins=[WholeCheckpointIO()])
    trainer.test(AdversarialModule(mlp(), None), datamodule=DigitsDataModule(), ckpt_path=path)


ROUTES: dict[str, Callable[[Path], Any]] = {
    "load_from_checkpoint": AdversarialModule.load_from_checkpoint,
    "load_module": load_module,
    "read_checkpoint": read_checkpoint,
    "a Trainer": python_fit,
    "a Trainer with the plugin": with_plugin,
    "fit": lambda path: main(["fit", f"--ckpt_path={path}", *QUIET]),
    "fit from the last": lambda path: main(
        ["fit", "--ckpt_path=last", f"--trainer.default_root_dir={path.parents[3]}", *QUIET]
    ),
    "validate": lambda path: main(["validate", f"--ckpt_path={path}", *QUIET]),
    "test": lambda path: main(["test", f"--ckpt_path={path}", *QUIET]),
    "predict": lambda path: main(["predict", f"--ckpt_path={path}", *QUIET]),
    "refit": lambda path: main(["refit", f"--run={path.parents[1]}"]),
    "compare": lambda path: main(["compare", f"--checkpoints=[{path},{path}]", "--names=[a,b]"]),
    "an ensemble": lambda path: CheckpointEnsemble([str(path), str(path)]),
    "a transferred attack": lambda path: Transferred(str(path), FGSM(0.1))(
        mlp(), torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), loss_fn=F.cross_entropy
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_runs_no_code_of_a_malicious_file(route: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    (path.parents[1] / "config.yaml").write_text("data: {class_path: adv_lightning.data.DigitsDataModule}\nmodel: {}")
    stored = torch.load(STORED, weights_only=True)
    torch.save({**stored, "evil": Evil(marker)}, path)
    with pytest.raises((Exception, SystemExit)) as refused:
        ROUTES[route](path)
    assert not marker.exists()
    said = "Weights only load failed" if route == "a Trainer" else "cannot be read safely"  # torch's own words, or ours
    assert said in f"{refused.value}{capsys.readouterr().err}"
    # The file is malicious indeed.
    torch.load(path, weights_only=False)
    assert marker.exists()


# The first format


def test_tests_and_resumes_a_checkpoint_of_format_1(tmp_path: Path) -> None:
    assert torch.load(STORED, weights_only=True)["adv_lightning_format"] == 1
    quiet = [f"--ckpt_path={STORED}", *QUIET, "--callbacks.attack_suite=null", "--callbacks.pictures=null"]
    judged = main(["test", *quiet, "--trainer.logger=false"])
    assert isinstance(judged, AdversarialCLI)
    figures = judged.trainer.callback_metrics
    # Counted when the file was written: 32 and 100 of 360.
    assert (figures["test/error"].item() * 360, figures["test/adv_error"].item() * 360) == pytest.approx((32, 100))
    words = ["--trainer.max_epochs=3", f"--trainer.default_root_dir={tmp_path}", "--trainer.log_every_n_steps=4"]
    resumed = main(["fit", *quiet, *words, "--callbacks.early_stopping=AdversarialEarlyStopping"])
    assert isinstance(resumed, AdversarialCLI)
    assert resumed.trainer.current_epoch == 3
    assert resumed.trainer.global_step == 36
