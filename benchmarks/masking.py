"""`python -m benchmarks.masking`: how many networks with masked gradients, and how many without, the checks flag.

It judges ten kinds of each, ten seeds a kind, on the test set of scikit-learn's digits, as `AttackSuite(masking=True)`
does, and writes results/masking.json. The kinds are in `masked_nets`. Takes about 15 minutes on a CPU core.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import FGSM, PGD, AdversarialModule, AttackSuite
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation.gradient_masking import verdict
from benchmarks.masked_nets import HONEST, MASKED, Judged, Make

EPS = 0.1
GROUPS: dict[str, dict[str, Make]] = {"masked": MASKED, "honest": HONEST}


def images(part: str) -> tuple[Tensor, Tensor]:
    """Return the images of "train" or "test", [N, 1, 8, 8] in [0, 1], and their labels."""
    x, y = DigitsDataModule().load("train" if part == "train" else "test")
    return x.float() / 16, y


def judge(judged: Judged, eps: float = EPS) -> dict[str, Any]:
    """Judge a network, and return its errors and which checks found something."""
    suite = AttackSuite(masking=True)
    module = AdversarialModule(judged.net, attack=None, val_attack=FGSM(eps, judged.bounds), loss_fn=judged.loss)
    x, y = images("test")
    y = torch.tensor(judged.labels)[y]
    loader = DataLoader(TensorDataset(x[y >= 0], y[y >= 0]), batch_size=200)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[suite],
    )  # fmt: skip
    with redirect_stdout(io.StringIO()):
        trainer.test(module, loader, verbose=False)
    rows = {row["name"]: row for row in suite.rows}
    return {
        "n": rows["PGD"]["n"],
        "bounds": judged.bounds,
        "clean": rows["clean"]["error"],
        "FGSM": rows["FGSM"]["error"],
        "PGD": rows["PGD"]["error"],
        "Square": rows[f"Square {eps:.4g}"]["error"],
        "adaptive": None if judged.bare is None else adaptive(judged.net, judged.bare, eps),
        "masked": [check.name for check in suite.checks if check.outcome == "masked"],
        "caution": [check.name for check in suite.checks if check.outcome == "caution"],
        "not run": [check.name for check in suite.checks if check.outcome == "not run"],
        "words": {check.name: check.words for check in suite.checks},
        "verdict": verdict(suite.checks),
    }


def adaptive(net: nn.Module, bare: nn.Module, eps: float) -> float:
    """Return the error of a network on the test set under PGD along the gradient that `bare` has."""
    x, y = images("test")
    x_adv = PGD(eps)(bare, x, y, loss_fn=nn.functional.cross_entropy)
    with torch.no_grad():
        return float((net(x_adv).argmax(dim=1) != y).double().mean())


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="networks of each kind")
    parser.add_argument("--kinds", nargs="+", choices=[*MASKED, *HONEST], default=[*MASKED, *HONEST], metavar="KIND")
    parser.add_argument("--eps", type=float, default=EPS, help="of the attacks, in the max norm")
    parser.add_argument("--json", type=Path, default=Path("results/masking.json"), metavar="PATH")
    options = parser.parse_args(args)
    warnings.filterwarnings(
        "ignore", category=UserWarning
    )  # of Lightning about the loader's workers, of zero gradients
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    x, y = images("train")
    nets: list[dict[str, Any]] = []
    for group, kinds in GROUPS.items():
        for kind in (kind for kind in kinds if kind in options.kinds):
            for seed in range(options.seeds):
                net = {"group": group, "kind": kind, "seed": seed, **judge(kinds[kind](x, y, seed), options.eps)}
                nets.append(net)
                errors = ", ".join(f"{name} {net[name]:.2f}" for name in ("clean", "PGD", "Square"))
                print(f"{group}: {kind}, seed {seed}: {errors}: {net['masked']} {net['caution']}", flush=True)
    record = {"eps": options.eps, "norm": "Linf", "data": "digits, test set", "nets": nets}
    options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
