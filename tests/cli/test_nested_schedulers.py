"""Schedulers inside a scheduler get its optimizer, from YAML, a checkpoint and Python."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, LinearLR, SequentialLR

from adv_lightning.cli import main
from adv_lightning.methods.optimizers import build_optimizers, described_scheduler
from adv_lightning.module import AdversarialModule

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--callbacks.attack_suite=null"]
PLACE = "torch.optim.lr_scheduler."
INNER: list[dict[str, Any]] = [
    {"class_path": f"{PLACE}LinearLR", "init_args": {"start_factor": 0.5, "total_iters": 2}},
    {"class_path": f"{PLACE}ExponentialLR", "init_args": {"gamma": 0.5}},
]
SEQUENCE = {"class_path": f"{PLACE}SequentialLR", "init_args": {"schedulers": INNER, "milestones": [2]}}
CHAIN = {"class_path": f"{PLACE}ChainedScheduler", "init_args": {"schedulers": INNER}}


def _rates(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int = 5) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _by_torch(kind: str) -> list[float]:
    """The rates that torch's own constructors give."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    inner = [LinearLR(optimizer, 0.5, total_iters=2), ExponentialLR(optimizer, 0.5)]
    made = SequentialLR(optimizer, inner, [2]) if kind == "sequence" else ChainedScheduler(inner, optimizer)
    return _rates(optimizer, made)


KINDS = {"sequence": SEQUENCE, "chain": CHAIN}


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_those_of_torch(kind: str, tmp_path: Path) -> None:
    config = tmp_path / "scheduler.yaml"
    settings = {
        "backbone": {"class_path": "SoftmaxRegression"},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}},
        "lr_scheduler": KINDS[kind],
    }
    config.write_text(yaml.safe_dump({"model": {"init_args": settings}}))
    words = ["--data=DigitsDataModule", "--trainer.max_epochs=5", "--trainer.limit_train_batches=1", *QUIET]
    words += [
        "--trainer.log_every_n_steps=1",
        "--trainer.limit_val_batches=1",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    cli = main(["fit", f"--config={config}", *words])
    again = cli.model.configure_optimizers()
    assert _rates(again["optimizer"], again["lr_scheduler"]["scheduler"]) == _by_torch(kind)

    path = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    assert len(torch.load(path, weights_only=True)["lr_schedulers"]) == 1
    loaded = AdversarialModule.load_from_checkpoint(path).configure_optimizers()
    assert _rates(loaded["optimizer"], loaded["lr_scheduler"]["scheduler"]) == _by_torch(kind)
    last = cli.trainer.optimizers[0].param_groups[0]["lr"]
    resumed = main(["fit", f"--ckpt_path={path}", *words, "--trainer.max_epochs=6"])
    assert resumed.trainer.current_epoch == 6
    assert resumed.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(last / 2)


def test_schedulers_in_python_nest_at_any_depth() -> None:
    factory = partial(
        ChainedScheduler,
        schedulers=[
            partial(SequentialLR, schedulers=[partial(LinearLR, start_factor=0.5), ConstantLR], milestones=[2]),
            partial(ExponentialLR, gamma=0.5),
        ],
    )
    made = build_optimizers(nn.Linear(1, 1).parameters(), partial(torch.optim.SGD, lr=1.0), factory)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    inner = SequentialLR(optimizer, [LinearLR(optimizer, start_factor=0.5), ConstantLR(optimizer)], [2])
    reference = ChainedScheduler([inner, ExponentialLR(optimizer, 0.5)], optimizer)
    assert _rates(made["optimizer"], made["lr_scheduler"]["scheduler"]) == _rates(optimizer, reference)


def test_a_file_names_schedulers_alone() -> None:
    hostile = {"class_path": f"{PLACE}SequentialLR", "init_args": {"schedulers": [{"class_path": "os.system"}]}}
    with pytest.raises(TypeError, match=r"os\.system is no LRScheduler"):
        described_scheduler(hostile)
    assert described_scheduler({"class_path": f"{PLACE}StepLR"}) == {"class_path": f"{PLACE}StepLR"}
