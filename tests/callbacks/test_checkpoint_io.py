"""Checkpoints are written whole or not at all, and no file that is read as one runs code."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule, CheckpointEnsemble, WholeCheckpointIO
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.evaluation.transferred import Transferred
from adv_lightning.methods.checkpoint_format import read_checkpoint
from tests.conftest import ROOT
from tests.support.helpers import mlp, quiet_trainer

STORED = ROOT / "tests" / "stored" / "format_1.ckpt"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


# Writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
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
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_leaves_the_former_checkpoint_whole(small_disk: Path) -> None:
    path = small_disk / "a.ckpt"
    WholeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(10)}}, path)
    before = path.read_bytes()
    with pytest.raises(
        OSError, match=r"a\.ckpt: no checkpoint can be written there \(No space left.*former one is there"
    ):
        WholeCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, path)
    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]


def test_a_full_disk_ends_training_with_a_line(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--config={ROOT / 'configs' / 'digits.yaml'}", *QUIET, f"--trainer.default_root_dir={small_disk}"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *words, "--trainer.log_every_n_steps=1"])  # a checkpoint of this net takes 500 kB
    assert stopped.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert "best.ckpt: no checkpoint can be written there (No space left on device), and there is none from" in line
    assert list(small_disk.rglob("*.ckpt*")) == []


def test_the_command_line_writes_with_it_unless_it_is_given_another(tmp_path: Path) -> None:
    base = ["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", *QUIET, "--trainer.fast_dev_run=true"]
    base += [f"--trainer.default_root_dir={tmp_path}", "--test_after_fit=false"]
    for words, kind in (
        ([], WholeCheckpointIO),
        (["--trainer.plugins=lightning.pytorch.plugins.AsyncCheckpointIO"], None),
        (["--trainer.plugins=lightning.pytorch.plugins.environments.LightningEnvironment"], WholeCheckpointIO),
    ):
        cli = main([*base, *words])
        assert isinstance(cli, AdversarialCLI)
        assert isinstance(cli.trainer.strategy.checkpoint_io, WholeCheckpointIO) == (kind is not None)


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
def test_damaged_files_are_refused_by_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged(tmp_path)[name]
    with pytest.raises(ValueError, match=rf"{name}: this is no checkpoint"):
        WholeCheckpointIO().load_checkpoint(path)
    if name != "weights":
        with pytest.raises(ValueError, match=rf"{name}: this is no checkpoint"):
            AdversarialModule.load_from_checkpoint(path)
    for command in ("fit", "test"):
        with pytest.raises(SystemExit):
            main([command, f"--ckpt_path={path}", *QUIET])
        assert f"error: --ckpt_path={path}: this is no checkpoint" in capsys.readouterr().err


class Evil:
    """Writes a file when a pickle of it is loaded without care."""

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
def test_a_malicious_file_runs_nothing(route: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    (path.parents[1] / "config.yaml").write_text("data: {class_path: adv_lightning.data.DigitsDataModule}\nmodel: {}")
    stored = torch.load(STORED, weights_only=True)
    torch.save({**stored, "evil": Evil(marker)}, path)
    with pytest.raises((Exception, SystemExit)) as refused:
        ROUTES[route](path)
    assert not marker.exists()
    assert "Weights only load failed" in f"{refused.value}{capsys.readouterr().err}"
    # It is what it claims to be.
    torch.load(path, weights_only=False)
    assert marker.exists()


# The first version


def test_a_checkpoint_of_the_first_format_is_judged_and_gone_on_with(tmp_path: Path) -> None:
    assert torch.load(STORED, weights_only=True)["adv_lightning_format"] == 1
    judged = main(["test", f"--ckpt_path={STORED}", *QUIET, "--trainer.logger=false"])
    assert isinstance(judged, AdversarialCLI)
    figures = judged.trainer.callback_metrics
    # Counted when it was written: 32 and 100 of 360.
    assert (figures["test/error"].item() * 360, figures["test/adv_error"].item() * 360) == pytest.approx((32, 100))
    words = [f"--ckpt_path={STORED}", *QUIET, "--trainer.max_epochs=3", f"--trainer.default_root_dir={tmp_path}"]
    words += ["--trainer.log_every_n_steps=4"]
    resumed = main(["fit", *words])
    assert isinstance(resumed, AdversarialCLI)
    assert resumed.trainer.current_epoch == 3
    assert resumed.trainer.global_step == 36
