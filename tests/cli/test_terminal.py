"""What the commands show in the terminal."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary

from adv_lightning.cli import main
from adv_lightning.cli.terminal import ParameterTable, default_summary, quiet
from tests.conftest import ROOT

FIT = ["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", "--trainer.max_epochs=1", "--callbacks.pictures=null"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_a_run_shows_the_network_and_nothing_needless(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        main([*FIT, "--trainer.limit_train_batches=1", "--test_after_fit=false"])
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "backbone.net.maxout1" in printed
    assert "68.2 K parameters, all trainable" in printed
    for word in ("Tip", "litlogger", "FLOPs", "Trainer already configured", "SoftmaxLoss"):
        assert word not in printed
    assert not [warning for warning in seen if "deprecated" in str(warning.message)]


def test_says_how_many_parameters_train(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [("Name", ["a", "b"]), ("Type", ["Linear", "ReLU"]), ("Params", ["2.0 M", "0"])]
    ParameterTable.summarize(columns, 2_000_000, 500, 8.0, {"train": 1, "eval": 0}, 0)
    printed = capsys.readouterr().out
    assert "2.0 M parameters, 500 trainable" in printed
    assert "ReLU" not in printed


def test_a_summary_of_the_users_own_wins() -> None:
    assert [type(each) for each in default_summary({}, [])] == [ParameterTable]
    for own in (ModelSummary(), RichModelSummary(max_depth=1)):
        assert default_summary({}, [own]) == []
    for config in ({"enable_model_summary": False}, {"barebones": True}):
        assert default_summary(config, []) == []


def test_other_lines_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, log.name):
        with quiet():
            log.info("💡 Tip: buy this")
            log.info("GPU available: False")
        log.info("💡 Tip: after the command")
    assert [record.getMessage() for record in caplog.records] == ["GPU available: False", "💡 Tip: after the command"]
