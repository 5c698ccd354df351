"""Every file of a run goes to its folder, whatever the logger, and pictures go through each logger's own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.callbacks.run_folder import run_folder
from adv_lightning.cli import main
from adv_lightning.evaluation import AdversarialPictures, AttackSuite, Report
from tests.conftest import ROOT
from tests.support import loggers
from tests.support.helpers import Batches, quiet_trainer

OF = "tests.support.loggers"
QUICK = [
    f"--config={ROOT}/configs/digits.yaml", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2",
    "--trainer.limit_test_batches=1", "--trainer.enable_progress_bar=false", "--test_after_fit=true",
    "--trainer.enable_model_summary=false", "--trainer.log_every_n_steps=1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ([f"--trainer.logger={OF}.Own"], "mine/version_{}"),
        ([f"--trainer.logger={OF}.LikeWandb"], "mine/run{}"),
        ([f"--trainer.logger={OF}.LikeWandb", "--trainer.logger.save_dir=logs"], "logs/mine/run{}"),
        ([f"--trainer.logger={OF}.LikeMLflow"], "mine/run{}"),
    ],
)
def test_two_runs_leave_their_files_in_their_folders(
    given: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loggers.Own, "runs", 0)
    for kind in (loggers.LikeWandb, loggers.LikeMLflow):
        monkeypatch.setattr(kind, "runs", 0)
    for _ in range(2):
        main(["fit", *QUICK, *given])
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    names = ["config.yaml", "metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"]
    for number in (1, 2):
        assert {f"{folder.format(number)}/{name}" for name in names} <= found
    assert {path for path in found if not path.startswith(folder.split("{}")[0])} == set()


def test_a_folder_of_another_run_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loggers.LikeWandb, "runs", 0)
    main(["fit", *QUICK, f"--trainer.logger={OF}.LikeWandb"])
    before = Path("mine/run1/config.yaml").read_bytes()
    loggers.LikeWandb.runs = 0  # the logger names the folder again
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *QUICK, f"--trainer.logger={OF}.LikeWandb", "--model.alpha=0.1"])
    assert stopped.value.code == 2
    assert "mine/run1/config.yaml is there already, from another run" in capsys.readouterr().err
    assert Path("mine/run1/config.yaml").read_bytes() == before


def test_pictures_go_through_each_loggers_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "SHOWN", [])
    board = TensorBoardLogger(tmp_path, version="a")
    several: list[Any] = [board, CSVLogger(tmp_path), loggers.LikeWandb(str(tmp_path)), loggers.LikeMLflow()]
    module = AdversarialModule(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), FGSM(0.1))
    data = Batches((torch.rand(8, 1, 4, 4), torch.arange(8) % 3))
    callbacks = [AdversarialPictures(), AttackSuite(), Report(html=True)]
    trainer = quiet_trainer(logger=several, callbacks=callbacks)
    trainer.fit(module, data, data)
    trainer.test(module, data, verbose=False)
    assert run_folder(trainer) == board.log_dir
    for name in ("LikeWandb", "LikeMLflow"):
        shown = [key.replace("_", " ") for kind, key in loggers.SHOWN if kind == name]
        assert any(key.startswith("adversarial examples") for key in shown)
        assert any(key.startswith("report/examples under FGSM") for key in shown)
    assert Path(board.log_dir, "report.html").is_file()
