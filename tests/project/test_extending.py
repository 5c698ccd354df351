"""Every block of docs/extending.md is short, runs, and does what the page says."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, AttackSuite, Report
from adv_lightning.data import DigitsDataModule
from tests.conftest import ROOT
from tests.support.helpers import batches, fit, mlp

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def taken(name: str) -> Any:
    """The class of that name on the page."""
    scope: dict[str, Any] = {}
    exec(next(block for block in BLOCKS if f"class {name}" in block), scope)
    return scope[name]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def evaluated(module: AdversarialModule, folder: Path, *callbacks: Any, data: Any = None) -> dict[str, Any]:
    """Test a module with a report, and return its metrics.json."""
    trainer = Trainer(accelerator="cpu", default_root_dir=folder, callbacks=[*callbacks, Report()])
    trainer.test(module, datamodule=data or DigitsDataModule(), verbose=False)
    (path,) = folder.rglob("metrics.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def test_every_block_has_at_most_twenty_lines() -> None:
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line]) <= 20, block


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_the_attack_trains_and_is_judged_beside_others(tmp_path: Path) -> None:
    attack = taken("TopPixels")(0.3, share=0.25)
    value, grad = torch.zeros(1, 8), torch.arange(8.0)[None] - 2.5
    assert torch.equal(attack.step(value, grad), torch.tensor([[0.0, 0, 0, 0, 0, 0, 0.3, 0.3]]))
    module = AdversarialModule(net(), attack)
    record = evaluated(module, tmp_path, AttackSuite(max_samples=50))
    names = [row["name"] for row in record["test"]]
    assert names[:4] == ["clean", "TopPixels", "TopPixels", "FGSM"] or {"TopPixels", "FGSM", "PGD"} <= set(names)


def test_the_method_equals_its_formula() -> None:
    attack = PGD(0.1, step_size=0.05, steps=2, random_start=False)
    module = AdversarialModule(mlp(), method=taken("LogitPairing")(attack, weight=0.3))
    x, y = batches(1).batches[0]
    total = module.objective(x, y).total
    network = mlp()
    x_adv = attack(network, x, y, loss_fn=F.cross_entropy)
    z, z_adv = network(x), network(x_adv)
    expected = F.cross_entropy(z_adv, y) + 0.3 * (z - z_adv).square().mean()
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-14)
    fit(module, batches(2))


def test_the_callback_logs_its_figure() -> None:
    trainer = fit(AdversarialModule(mlp(), FGSM(0.1)), batches(2), callbacks=[taken("RobustGap")()])
    assert trainer.callback_metrics["train/gap"] > 0


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_the_data_set_is_learnt() -> None:
    data = taken("Stripes")(batch_size=50, val_size=100)
    trainer = Trainer(accelerator="cpu", max_epochs=5, logger=False, enable_checkpointing=False, log_every_n_steps=1)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    module = AdversarialModule(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), FGSM(0.05), optimizer=optimizer)
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["val/adv_error"] == 0


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_the_section_reaches_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluated(AdversarialModule(net(), FGSM(0.1)), tmp_path, taken("MeanConfidence")())
    assert 0.1 < record["mean_confidence"]["mean"] < 0.5
    assert record["mean_confidence"]["n"] == 360
    assert "Mean confidence on 360" in capsys.readouterr().out
