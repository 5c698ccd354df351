"""Figures 2 to 5 are drawn from checkpoints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from adv_lightning.cli import main as library
from adv_lightning.paper.__main__ import main
from adv_lightning.paper.figures import Networks, stacked
from tests.conftest import ROOT
from tests.support.small_data import write_idx

pytestmark = pytest.mark.filterwarnings("ignore:The .* does not have many workers")


def test_draws_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_idx(tmp_path / "data" / "MNIST" / "raw", test=40)
    monkeypatch.chdir(tmp_path)
    small = ["--data.root=data", "--data.val_size=4", "--data.batch_size=4", "--trainer.max_epochs=1"]
    small += ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false", "--test_after_fit=false"]
    small += ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--callbacks.pictures=null"]
    for name, config, further in (
        ("logistic", "mnist_logistic", []),
        ("maxout_plain", "mnist_maxout_adv", ["--model.alpha=1", "--model.backbone.units=8"]),
    ):
        folder = f"--trainer.default_root_dir=paper_runs/{name}/seed0"
        library(["fit", f"--config={ROOT / 'configs' / config}.yaml", *small, *further, folder])
    assert main(["figures"]) == 2
    said = capsys.readouterr().err
    assert "paper_runs/maxout_adv/seed0" in said
    assert "run maxout.adv.fgsm --seed 0" in said
    assert not (tmp_path / "paper_figures").exists()

    plain = Networks(Path("paper_runs")).path("maxout_plain")
    assert main(["figures", "--out", "drawn", "--checkpoints", f"maxout_adv={plain}"]) == 0
    for name in ("fig2", "fig3", "fig4", "fig5"):
        drawn = Image.open(tmp_path / "drawn" / f"{name}.png").convert("RGB")
        assert min(drawn.size) > 300
        assert len(drawn.resize((90, 90)).getcolors(90 * 90)) > 100


@pytest.mark.parametrize("word", ["maxout_adv", "nothing=a.ckpt"])
def test_refuses_other_checkpoints(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "--checkpoints", word]) == 2
    assert "logistic, maxout_plain, maxout_adv" in capsys.readouterr().err


def test_stacked() -> None:
    def png(width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, format="png")
        return buffer.getvalue()

    assert Image.open(io.BytesIO(stacked([png(10, 4), png(6, 5)]))).size == (10, 9)
    assert Image.open(io.BytesIO(stacked([png(10, 4), png(6, 5)], beside=True))).size == (16, 5)
