"""Class paths are data: files of format 1 are read for good, and what is written now holds public paths."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import adv_lightning
from adv_lightning import FGSM, PGD, AdversarialModule, MemberAttack, Mixed, ScaledGradient, SingleStepAttack, main
from adv_lightning.attacks.description import build
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.methods.checkpoint_format import read_checkpoint
from adv_lightning.methods.moved_paths import MOVED, moved
from tests.conftest import ROOT
from tests.support.helpers import batches, fit, mlp, quiet_trainer

STORED = ROOT / "tests" / "support" / "stored"
FIRST = ["format_1.ckpt", "format_1_moved.ckpt"]
"""Made by the command line before files moved; the second names classes by files that have moved since."""


def paths_in(value: Any) -> set[str]:
    """All class paths in a nest of settings."""
    if isinstance(value, dict):
        own = {v for k, v in value.items() if k in ("class_path", "_class_path") and isinstance(v, str)}
        return own.union(*map(paths_in, value.values()))
    return set().union(*map(paths_in, value)) if isinstance(value, list | tuple) else set()


def internal(paths: set[str]) -> set[str]:
    """Those of this package that name a file: public paths have at most two dots."""
    return {path for path in paths if path.startswith("adv_lightning.") and path.count(".") > 2}


# Format 1


def test_moved_paths_lead_to_public_names() -> None:
    for new in MOVED.values():
        assert new.removeprefix("adv_lightning.") in adv_lightning.__all__


@pytest.mark.parametrize("name", FIRST)
def test_rebuilds_a_module(name: str) -> None:
    module = load_module(STORED / name)
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert type(module.attack) is (FGSM if name == FIRST[0] else ScaledGradient)


def test_rebuilds_a_module_made_in_python() -> None:
    module = AdversarialModule.load_from_checkpoint(STORED / "format_1_python.ckpt", backbone=nn.Linear(4, 3))
    assert isinstance(module.attack, ScaledGradient)
    assert isinstance(module.val_attack, MemberAttack)
    assert isinstance(module.val_attack.attack, PGD)
    assert (module.attack.eps, module.alpha, module.passes.masks) == (0.5, 0.3, "shared")
    state = read_checkpoint(STORED / "format_1_python.ckpt")["state_dict"]
    assert torch.equal(module.backbone.weight, state["backbone.weight"])


@pytest.mark.parametrize("name", FIRST)
def test_is_tested_by_the_command_line(name: str, tmp_path: Path) -> None:
    words = ["test", f"--ckpt_path={STORED / name}", f"--trainer.default_root_dir={tmp_path}"]
    words += ["--callbacks.attack_suite=null", "--trainer.enable_progress_bar=false"]
    words += [] if name == FIRST[0] else ["--model.val_attack=FGSM", "--model.val_attack.eps=0.1"]
    assert main(words).trainer.callback_metrics["test/error"] < 1


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_training_continues(tmp_path: Path) -> None:
    module = AdversarialModule(nn.Linear(4, 3), ScaledGradient(0.5), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(module, batches(2, 16, 4, dtype=torch.float32), ckpt_path=STORED / "format_1_python.ckpt")
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    assert read_checkpoint(tmp_path / "new.ckpt")["adv_lightning_format"] == 2


class Shifted(SingleStepAttack):
    """An attack with state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, dtype=torch.float64))

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + self.shift


def test_an_attacks_buffer_is_found(tmp_path: Path) -> None:
    trainer = fit(AdversarialModule(mlp(), Shifted(), val_attack=FGSM(0.1)), batches(1))
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = read_checkpoint(tmp_path / "new.ckpt", mmap=False)
    state = checkpoint["state_dict"]
    state["attack.shift"] = state.pop("method.attack.shift") + 7
    torch.save(checkpoint | {"adv_lightning_format": 1}, tmp_path / "old.ckpt")
    again = AdversarialModule.load_from_checkpoint(tmp_path / "old.ckpt", backbone=mlp(), attack=Shifted())
    assert again.attack.shift.item() == 7


def test_attacks_in_tracked_results_can_be_built() -> None:
    files = sorted((ROOT / "results").rglob("*.json"))
    assert len(files) > 50
    seen: set[str] = set()
    for file in files:
        record = json.loads(file.read_text(encoding="utf-8"))
        for row in record.get("test", []):
            described = json.dumps(row.get("attack"))
            if row.get("attack") and described not in seen:
                seen.add(described)
                attack = build(moved(row["attack"]), adv_lightning.Attack)
                assert attack.config()["init_args"].keys() >= row["attack"]["init_args"].keys()


# From now on


def test_a_checkpoint_made_in_python_holds_public_paths(tmp_path: Path) -> None:
    attack, judge = ScaledGradient(0.5), MemberAttack(PGD(0.1, steps=2))
    for given in ({"attack": attack}, {"method": Mixed(attack, alpha=0.3, masks="shared")}):
        trainer = fit(AdversarialModule(mlp(), val_attack=judge, **given), batches(1))
        trainer.save_checkpoint(tmp_path / "new.ckpt")
        checkpoint = read_checkpoint(tmp_path / "new.ckpt")
        found = paths_in(checkpoint["hyper_parameters"])
        assert {"adv_lightning.ScaledGradient", "adv_lightning.MemberAttack", "adv_lightning.PGD"} <= found
        assert internal(found) == set()
        assert checkpoint["adv_lightning_format"] == 2
        again = AdversarialModule.load_from_checkpoint(tmp_path / "new.ckpt", backbone=mlp())
        assert again.method.config() == trainer.lightning_module.method.config()
        assert again.val_attack.config() == judge.config()


def test_a_run_writes_public_paths(tmp_path: Path) -> None:
    words = [
        *("fit", f"--config={ROOT / 'configs' / 'digits.yaml'}", f"--trainer.default_root_dir={tmp_path}"),
        *("--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"),
        *("--trainer.enable_progress_bar=false", "--model.attack=null", "--model.method=Mixed"),
        *("--model.method.attack=adv_lightning.attacks.gradient.ScaledGradient", "--model.method.attack.eps=0.3"),
        "--model.method.alpha=0.2",
    ]
    model = main(words).model
    assert (model.method.attack.eps, model.alpha) == (0.3, 0.2)
    run = tmp_path / "lightning_logs" / "version_0"
    last = run / "checkpoints" / "last.ckpt"
    written = [
        yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")),
        json.loads((run / "metrics.json").read_text(encoding="utf-8")),
        read_checkpoint(last)["hyper_parameters"],
        read_checkpoint(last)["datamodule_hyper_parameters"],
    ]
    for content in written:
        assert paths_in(content)
        assert internal(paths_in(content)) == set()
    assert load_module(last).method.config() == model.method.config()
    words = ["test", f"--ckpt_path={last}", f"--trainer.default_root_dir={tmp_path}", "--model.val_attack.eps=0.7"]
    judged = main([*words, "--callbacks.attack_suite=null", "--trainer.enable_progress_bar=false"]).model
    assert (judged.val_attack.eps, judged.method.attack.eps) == (0.7, 0.3)


def test_the_config_of_a_run_of_before_still_trains(tmp_path: Path) -> None:
    words = [f"--config={STORED / 'format_1_config.yaml'}", f"--trainer.default_root_dir={tmp_path}"]
    model = main(["fit", *words]).model
    assert isinstance(model.val_attack, adv_lightning.TorchAttack)
    written = yaml.safe_load((tmp_path / "lightning_logs" / "version_0" / "config.yaml").read_text(encoding="utf-8"))
    assert internal(paths_in(written)) == set()
    assert "adv_lightning.RubbishTest" in paths_in(written)
