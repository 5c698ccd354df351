"""Every shipped configuration trains and is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adv_lightning.attacks.external import auto_attack
from adv_lightning.cli import main
from tests.conftest import ROOT
from tests.support.small_data import SMALL, write_all

CONFIGS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "configs").glob("*.yaml")}
BASE = "mnist_maxout_adv"
"""What a configuration without data is composed after."""
FEW_PGD_STEPS = "--callbacks.attack_suite.attacks={PGD: {class_path: PGD, init_args: {eps: 0.03, steps: 2}}}"
LITTLE = {
    "cifar10_resnet18": [FEW_PGD_STEPS],
    "image_folder_resnet18": [FEW_PGD_STEPS, "--data.image_size=32"],
    "evaluate": ["--callbacks.rubbish_test.samples=10", "--callbacks.fooling.samples=10"],
    "fooling": ["--callbacks.fooling.samples=10"],
    "rubbish_test": ["--callbacks.rubbish_test.samples=10"],
}
"""Arguments that make a configuration quick."""


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    whole = "class_path" in CONFIGS[name].get("data", {})
    files = [f"--config={ROOT / 'configs' / f'{stem}.yaml'}" for stem in ([name] if whole else [BASE, name])]
    # A composed one is quick, since it writes nothing. Logs and checkpoints are tested with its base.
    short = "--trainer.max_epochs=1" if whole else "--trainer.fast_dev_run=true"
    monkeypatch.setattr(auto_attack, "_NUMBERS", {"steps": 2, "n_queries": 20})
    cli = main(["fit", *files, short, *SMALL, *LITTLE.get(name, [])])
    assert cli.trainer.global_step == 1
    printed = capsys.readouterr().out
    assert "FGSM(" in printed
    assert "PGD(" in printed
    assert any(tmp_path.rglob("*.ckpt")) == whole
