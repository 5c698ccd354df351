from __future__ import annotations

import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialCheckpoint, AdversarialModule, Attack, AttackSuite
from tests.helpers import Batches, Snapshot, batches, fit, mlp, quiet_trainer


def loader() -> Batches:
    return Batches(*batches(3, seed=1), *batches(1, size=5, seed=2))


def row_by_hand(net: nn.Module, name: str, attack: Attack | None, n: int = 29) -> dict[str, Any]:
    x, y = (torch.cat(parts)[:n] for parts in zip(*loader(), strict=True))
    net = copy.deepcopy(net).eval()
    x_adv = x if attack is None else attack(net, x, y, loss_fn=F.cross_entropy)
    probabilities = net(x_adv).softmax(1)
    wrong = probabilities.argmax(1) != y
    confidence = None if attack is None else pytest.approx(probabilities.amax(1)[wrong].mean().item(), abs=1e-6)
    return {
        "name": name,
        "attack": None if attack is None else attack.config(),
        "error": pytest.approx(wrong.double().mean().item(), abs=1e-6),
        "confidence_on_mistakes": confidence,
        "n": n,
    }


def judged(suite: AttackSuite, attack: Attack | None = None, **kwargs: Any) -> tuple[AdversarialModule, Any]:
    module = AdversarialModule(mlp(), attack or FGSM(0.3, bounds=(-2, 2)))
    trainer = quiet_trainer(callbacks=[suite], **kwargs)
    trainer.test(module, loader(), verbose=False)
    return module, trainer


def test_puts_pgd_beside_the_modules_own_attack() -> None:
    suite = AttackSuite()
    module, trainer = judged(suite)
    pgd = PGD(0.3, bounds=(-2, 2))
    assert suite.rows == [
        row_by_hand(module.backbone, "clean", None),
        row_by_hand(module.backbone, "FGSM", FGSM(0.3, bounds=(-2, 2))),
        row_by_hand(module.backbone, "PGD", pgd),
    ]
    assert trainer.callback_metrics["test/PGD_error"] == suite.rows[2]["error"]
    assert trainer.callback_metrics["test/adv_error"] == suite.rows[1]["error"]
    assert suite.rows[0]["error"] < suite.rows[1]["error"]


def test_named_attacks_take_the_place_of_the_default() -> None:
    suite = AttackSuite({"weak": FGSM(0.05), "strong": PGD(0.8, steps=5)})
    module, trainer = judged(suite)
    assert [row["name"] for row in suite.rows] == ["clean", "FGSM", "weak", "strong"]
    assert suite.rows[2] == row_by_hand(module.backbone, "weak", FGSM(0.05))
    assert suite.rows[3] == row_by_hand(module.backbone, "strong", PGD(0.8, steps=5))
    assert {"test/weak_error", "test/strong_error"} <= set(trainer.callback_metrics)


def test_a_module_judged_by_pgd_needs_no_other() -> None:
    suite = AttackSuite()
    judged(suite, PGD(0.3, steps=2))
    assert [row["name"] for row in suite.rows] == ["clean", "PGD"]


def test_without_an_attack_the_clean_row_stands_alone() -> None:
    suite = AttackSuite()
    module = AdversarialModule(mlp(), None)
    quiet_trainer(callbacks=[suite]).test(module, loader(), verbose=False)
    assert suite.rows == [row_by_hand(module.backbone, "clean", None)]


@pytest.mark.parametrize("samples", [3, 8, 11, 29, 1000])
def test_judges_the_first_samples_only(samples: int) -> None:
    suite = AttackSuite(max_samples=samples)
    module, _ = judged(suite)
    pgd = PGD(0.3, bounds=(-2, 2))
    assert suite.rows[1]["n"] == 29
    assert suite.rows[2] == row_by_hand(module.backbone, "PGD", pgd, n=min(samples, 29))


def test_a_second_test_starts_anew() -> None:
    suite = AttackSuite()
    module, trainer = judged(suite)
    first = suite.rows
    trainer.test(module, loader(), verbose=False)
    assert suite.rows == first


def test_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3), nn.Dropout()).double()
    before = Snapshot(net)
    quiet_trainer(callbacks=[AttackSuite()]).test(AdversarialModule(net, FGSM(0.1)), loader(), verbose=False)
    before.assert_same(net)


def test_works_under_autocast() -> None:
    suite = AttackSuite()
    module = AdversarialModule(mlp().float(), FGSM(0.3))
    data = batches(2, dtype=torch.float32)
    quiet_trainer(callbacks=[suite], precision="bf16-mixed").test(module, data, verbose=False)
    with torch.autocast("cpu", torch.bfloat16):
        x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
        net = module.backbone.eval()
        error = (net(PGD(0.3)(net, x, y, loss_fn=F.cross_entropy)).argmax(1) != y).double().mean()
    assert suite.rows[2]["error"] == pytest.approx(error.item())


def test_writes_a_record_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    suite, logger = AttackSuite(), CSVLogger(tmp_path)
    judged(suite, logger=logger)
    record = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in record["test"]] == ["clean", "FGSM", "PGD"]
    assert record["test"] == json.loads(json.dumps(suite.rows))
    assert record["test"][1]["attack"]["init_args"] == {"eps": 0.3, "bounds": [-2.0, 2.0]}
    assert record["model"]["alpha"] == 0.5
    assert record["model"]["attack"]["class_path"] == "adv_lightning.attacks.fgsm.FGSM"
    assert (record["seed"], record["mode"], record["precision"]) == (7, "eval", "32-true")
    assert record["processes"] == 1
    assert record["versions"]["torch"] == version("torch")
    assert record["training"]["checkpoint"] is None
    assert list(Path(logger.log_dir).glob("*.partial")) == []


@pytest.mark.parametrize("when", ["during", "after"])
def test_the_record_knows_how_long_a_checkpoint_was_trained(when: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(tmp_path)
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path)
    trainer = fit(module, batches(4), max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    if when == "after":
        trainer.save_checkpoint(path)
    trainer = quiet_trainer(callbacks=[AttackSuite(), checkpoint], enable_checkpointing=True, logger=logger)
    trainer.test(module, loader(), ckpt_path=path, verbose=False)
    record = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))
    assert record["training"] == {"epochs": 3, "steps": 12, "seconds": None, "checkpoint": "last.ckpt"}


def test_without_a_logger_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = AttackSuite()
    judged(suite, logger=False)
    assert len(suite.rows) == 3
    assert list(tmp_path.rglob("*.json")) == []


def test_prints_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    judged(suite)
    shown = capsys.readouterr().out
    assert "FGSM(eps=0.3" in shown
    for row in suite.rows:
        assert f"{row['error']:.2%}" in shown


@pytest.mark.parametrize("samples", [0, -1])
def test_refuses_fewer_than_one_sample(samples: int) -> None:
    with pytest.raises(ValueError, match=f"max_samples={samples}: give at least 1, or null for all"):
        AttackSuite(max_samples=samples)


def test_judges_no_other_module() -> None:
    class Other(LightningModule):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    with pytest.raises(TypeError, match="AttackSuite judges an AdversarialModule, and this is a Other"):
        quiet_trainer(callbacks=[AttackSuite()]).test(Other(), loader(), verbose=False)
