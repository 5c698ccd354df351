"""A run without checkpoints, and one that goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.lightning.conftest import Command
from tests.support.helpers import weights


@pytest.mark.switch("works", "enable_checkpointing=False")
def test_no_checkpoints(command: Command, tmp_path: Path) -> None:
    cli = command("--trainer.enable_checkpointing=false", "--test_after_fit=true")
    assert "test/adv_error" in cli.trainer.callback_metrics
    assert list(tmp_path.rglob("*.ckpt")) == []


@pytest.mark.switch("works", "ckpt_path")
def test_resuming(command: Command, tmp_path: Path) -> None:
    whole = command("--trainer.max_epochs=2").model
    command(f"--trainer.default_root_dir={tmp_path / 'cut'}")
    (last,) = (tmp_path / "cut").rglob("last.ckpt")
    further = [f"--ckpt_path={last}", "--trainer.max_epochs=2", f"--trainer.default_root_dir={tmp_path / 'on'}"]
    resumed = command(*further)
    assert resumed.trainer.global_step == 8
    assert torch.equal(weights(resumed.model), weights(whole))
