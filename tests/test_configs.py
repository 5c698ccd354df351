"""Every shipped configuration runs a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adv_lightning.cli import main
from tests.conftest import ROOT
from tests.support.small_data import write_cifar, write_idx, write_pictures

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
BASE = "mnist_maxout_adv"
"""What a configuration that names no data is composed after."""


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_idx(tmp_path / "data" / "MNIST" / "raw")
    write_idx(tmp_path / "data" / "FashionMNIST" / "raw", zipped=True)
    write_cifar(tmp_path / "data", monkeypatch)
    write_pictures(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
@pytest.mark.parametrize("name", CONFIGS)
def test_runs_a_step_and_a_test(name: str, small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [ROOT / "configs" / f"{name}.yaml"]
    if "class_path" not in yaml.safe_load(files[0].read_text()).get("data", {}):
        files.insert(0, ROOT / "configs" / f"{BASE}.yaml")
    kind = yaml.safe_load(files[0].read_text())["data"]["class_path"]
    small = ["--data.val_size=4", "--data.batch_size=4", "--callbacks.attack_suite.max_samples=4"]
    if kind == "ImageFolderDataModule":
        small.append("--data.image_size=32")
    cli = main(["fit", *(f"--config={file}" for file in files), "--trainer.fast_dev_run=true", *small])
    assert cli.trainer.global_step == 1
    printed = capsys.readouterr().out
    assert "FGSM(" in printed
    assert "PGD(" in printed
    assert not (small_data / "lightning_logs").exists()
