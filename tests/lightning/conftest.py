"""Lightning's own switches: each works with the two-pass step or is refused, as docs/lightning.md says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adv_lightning.cli import AdversarialCLI, main
from tests.conftest import ROOT

Command = Callable[..., AdversarialCLI]


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the process a seed, and work in an empty folder."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `fit` on a tiny network through the command line."""

    def run(*args: str) -> AdversarialCLI:
        return main(
            [
                "fit",
                f"--config={ROOT / 'configs' / 'digits.yaml'}",
                "--model.backbone.units=8",
                "--trainer.accelerator=cpu",
                "--trainer.max_epochs=1",
                "--trainer.limit_train_batches=4",
                "--trainer.log_every_n_steps=1",
                "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false",
                "--callbacks.pictures=null",
                "--test_after_fit=false",
                f"--trainer.default_root_dir={tmp_path / 'runs'}",
                *args,
            ]
        )

    return run
