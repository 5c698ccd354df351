"""`python -m benchmarks.masking`: how many networks with masked gradients, and how many without, the checks flag.

It judges ten kinds of each, ten seeds a kind, on the test set of scikit-learn's digits, as `AttackSuite(masking=True)`
does, and writes results/checks/masking.json and the table in docs/judging.md. The kinds are in `masked_nets`. The
thresholds of the checks were set on seeds 0 to 9; the seeds judged here begin at 100. Takes about 15 minutes on a CPU
core.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import FGSM, PGD, AdversarialModule, AttackSuite
from adv_lightning.data import DigitsDataModule
from benchmarks.masked_nets import HONEST, MASKED, Judged, Make
from benchmarks.report import around_markers, write_between_markers

EPS = 0.1
RANDOM = "same input twice"
BEGIN, END = "<!-- masking: begin -->", "<!-- masking: end -->"
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
    }


def adaptive(net: nn.Module, bare: nn.Module, eps: float) -> float:
    """Return the error of a network on the test set under PGD along the gradient that `bare` has."""
    x, y = images("test")
    x_adv = PGD(eps)(bare, x, y, loss_fn=nn.functional.cross_entropy)
    with torch.no_grad():
        return float((net(x_adv).argmax(dim=1) != y).double().mean())


def is_flagged(net: Mapping[str, Any]) -> bool:
    """Whether a check found masked gradients in a judged network, or that its answers are random."""
    return bool(net["masked"]) or RANDOM in net["caution"]


def table(record: Mapping[str, Any]) -> str:
    """Return a line for each kind of network in Markdown, and the totals."""
    lines = [
        "| kind | networks | flagged | by which checks (networks) | clean | PGD-40 | Square | true gradient |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    totals = []
    for group in GROUPS:
        nets = [net for net in record["nets"] if net["group"] == group]
        totals.append(f"{sum(map(is_flagged, nets))} of {len(nets)} {group} ones")
        for kind in dict.fromkeys(net["kind"] for net in nets):
            of_kind = [net for net in nets if net["kind"] == kind]
            found = Counter(
                name for net in of_kind for name in {*net["masked"], *({RANDOM} & {*net["caution"]})}
            ).most_common()
            errors = [_range([net[name] for net in of_kind]) for name in ("clean", "PGD", "Square", "adaptive")]
            cells = [
                f"{group}: {kind}", str(len(of_kind)), str(sum(map(is_flagged, of_kind))),
                ", ".join(f"{name} ({count})" for name, count in sorted(found)) or "-", *errors,
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    said = (
        f"Flagged: {', '.join(totals)}. eps {record['eps']:g}, max norm, model in eval mode, seeds {record['seeds']}."
    )
    return "\n".join([said, "", *lines])


def _range(errors: Sequence[float | None]) -> str:
    known = [100 * error for error in errors if error is not None]
    return f"{min(known):.0f} to {max(known):.0f} %" if known else "-"


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="networks of each kind")
    parser.add_argument("--first_seed", type=int, default=100, help="seed of the first network of each kind")
    parser.add_argument("--kinds", nargs="+", choices=[*MASKED, *HONEST], default=[*MASKED, *HONEST], metavar="KIND")
    parser.add_argument("--eps", type=float, default=EPS, help="of the attacks, in the max norm")
    parser.add_argument("--json", type=Path, default=Path("results/checks/masking.json"), metavar="PATH")
    parser.add_argument("--write", type=Path, metavar="PATH", help="page to write the table to, between its markers")
    options = parser.parse_args(args)
    if options.write is not None:
        around_markers(options.write, BEGIN, END)  # an error now rather than after a quarter of an hour
    # Lightning's advice on workers of the loader, and warnings of what these networks are made to do.
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    x, y = images("train")
    nets: list[dict[str, Any]] = []
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for group, kinds in GROUPS.items():
        for kind in (kind for kind in kinds if kind in options.kinds):
            for seed in seeds:
                net = {"group": group, "kind": kind, "seed": seed, **judge(kinds[kind](x, y, seed), options.eps)}
                nets.append(net)
                errors = ", ".join(f"{name} {net[name]:.2f}" for name in ("clean", "PGD", "Square"))
                print(f"{group}: {kind}, seed {seed}: {errors}: {net['masked']} {net['caution']}", flush=True)
    record = {
        "eps": options.eps, "norm": "Linf", "data": "digits, test set", "seeds": f"{seeds[0]} to {seeds[-1]}",
        "nets": nets,
    }  # fmt: skip
    options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record))
    if options.write is not None:
        write_between_markers(options.write, table(record), BEGIN, END)


if __name__ == "__main__":
    main()
