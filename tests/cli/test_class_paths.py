"""Class paths of before files moved are read, and public ones are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adv_lightning import AdversarialPictures, ClassCentres, InputNoise, RubbishTest, ScaledGradient, SignNoise
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.cli.refit import refit_arguments
from adv_lightning.methods.moved_paths import MOVED
from tests.conftest import ROOT

STORED = ROOT / "tests" / "support" / "stored" / "config_format_1.yaml"
DIGITS = f"--config={ROOT / 'configs' / 'digits.yaml'}"
ENSEMBLE = "adv_lightning.checkpoint_ensemble.CheckpointEnsemble"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def class_paths(config: Any) -> set[str]:
    if isinstance(config, list):
        return set().union(*map(class_paths, config))
    if not isinstance(config, dict):
        return set()
    own = {config["class_path"]} if "class_path" in config else set()
    return own.union(*map(class_paths, config.values()))


def test_a_stored_config_builds_todays_classes() -> None:
    cli = AdversarialCLI(args=[f"--config={STORED}"], run=False)
    assert isinstance(cli.model.attack, ScaledGradient)
    found = {type(each): each for each in cli.trainer.callbacks}
    assert {ClassCentres, AdversarialPictures, RubbishTest} <= found.keys()
    assert isinstance(found[InputNoise].noise, SignNoise)
    assert (found[AdversarialPictures].samples, found[RubbishTest].samples) == (2, 20)


@pytest.mark.parametrize("name", ["config_format_1.yaml", "format_1_config.yaml"])
def test_writes_public_paths(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(printed(["fit", f"--config={STORED.with_name(name)}"], capsys))
    own = {path for path in class_paths(config) if path.startswith("adv_lightning.")}
    assert "adv_lightning.ScaledGradient" in own
    assert {path for path in own if not re.fullmatch(r"adv_lightning\.((data|models)\.)?[A-Z]\w*", path)} == set()


def test_a_run_writes_public_paths() -> None:
    main(["fit", f"--config={STORED}", "--callbacks.noise=null"])
    written = Path("lightning_logs", "version_0", "config.yaml").read_text(encoding="utf-8")
    assert not any(path in written for path in MOVED)


WORDS = {
    "a class": (["--model.attack={}", "--model.attack.eps=1"], "adv_lightning.attacks.gradient.ScaledGradient"),
    "its long form": (["--model.attack.class_path={}"], "adv_lightning.attacks.pgd.PGD"),
    "two words": (["--model.backbone", "{}", "--model.backbone.checkpoints=[a.ckpt]"], ENSEMBLE),
    "a mapping": (['--model.val_attack={{"class_path": "{}"}}'], "adv_lightning.transferred.Transferred"),
    "a list": (["--trainer.callbacks=[{}]"], "adv_lightning.callbacks.momentum.MomentumSchedule"),
    "one more": (["--trainer.callbacks+={}"], "adv_lightning.callbacks.centres.ClassCentres"),
    "a plugin": (["--trainer.plugins={}"], "adv_lightning.checkpoint_io.WholeCheckpointIO"),
}


@pytest.mark.parametrize("case", WORDS)
def test_reads_old_paths_on_the_command_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, path = WORDS[case]
    found = class_paths(yaml.safe_load(printed(["fit", DIGITS, *(word.format(path) for word in words)], capsys)))
    assert MOVED[path] in found
    assert path not in found


def test_refit_reads_a_stored_config(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    content = {"epoch": 3, "global_step": 8, "state_dict": {}}
    torch.save(content, tmp_path / "run" / "checkpoints" / "best.ckpt")
    text = STORED.read_text(encoding="utf-8").replace("adv_lightning.data.digits.", "adv_lightning.data.")
    (tmp_path / "run" / "config.yaml").write_text(text, encoding="utf-8")
    assert "--trainer.max_epochs=4" in refit_arguments(["--run=run"])
