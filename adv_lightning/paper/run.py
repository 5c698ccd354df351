"""Runs what claims need, and writes the records to a folder of results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from adv_lightning.cli import main
from adv_lightning.cli.resume import newest
from adv_lightning.evaluation.metrics_record import write_json
from adv_lightning.paper.claims import Claim, Paper, Run, load
from adv_lightning.paper.closed_form import closed_form
from adv_lightning.paper.report import rows, show
from adv_lightning.paper.results import Results

_EPS = 0.25
_COMMAND = "command.json"
_RECORD = "metrics.json"


class Runner:
    """Makes runs, each in a folder of its own, after the runs that they need.

    A finished run is not run again; an interrupted one continues.

    Args:
        paper: The claims and runs.
        data: Folder of the data.
        runs: Folder with a folder for each run and seed.
        out: Folder of results.
        further: Arguments of `fit` in addition to the runs' own.
    """

    def __init__(self, paper: Paper, data: Path, runs: Path, out: Path, further: Sequence[str] = ()) -> None:
        self.paper, self.data, self.runs, self.out, self.further = paper, data, runs, out, list(further)
        self._made: set[tuple[str, int]] = set()

    def make(self, run: Run, seed: int) -> None:
        """Make a run for a seed, and write its record to the results.

        Raises:
            ValueError: the run was interrupted, or was started before with other arguments.
            SystemExit: the command refused its arguments or the data; the reason is printed.
        """
        if (run.name, seed) in self._made:
            return
        made_of = [(self.paper.runs[name], s) for name in run.of for s in self._seeds_of(run, name, seed)]
        for other, s in made_of:
            self.make(other, s)
        folder = self.folder(run, seed)
        self._remember(run, folder)
        record = _finished(folder)
        if record is None:
            print(f"{run.name}, seed {seed}: {run.do}, {run.cost}, in {folder}", flush=True)
            self._do(run, seed, folder, made_of)
            record = _finished(folder)
        else:
            print(f"{run.name}, seed {seed}: done before, in {folder}", flush=True)
        if record is None:
            raise ValueError(f"{run.name}, seed {seed} is not finished. Run the same command to continue it")
        path = place(self.out, run, seed)
        write_json(_without_paths(record, {self.runs: "paper_runs", self.data: "data"}), path.parent, path.name)
        self._made.add((run.name, seed))

    def folder(self, run: Run, seed: int) -> Path:
        """Return the folder of a run."""
        return self.runs / run.name / f"seed{seed}"

    def _seeds_of(self, run: Run, name: str, seed: int) -> Sequence[int]:
        return self.paper.runs[name].seeds if run.do == "ensemble" else [seed]

    def _remember(self, run: Run, folder: Path) -> None:
        """Store the run's arguments in its folder; refuse a folder with other ones."""
        path = folder / _COMMAND
        now = {"arguments": [run.do, *run.of, *run.arguments, *self._of_fit(run)]}
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before != now:
                raise ValueError(
                    f"{folder} was made with other arguments ({' '.join(before['arguments'])}). Give another folder "
                    "with --runs, or remove this one"
                )
            return
        write_json(now, folder, _COMMAND)

    def _of_fit(self, run: Run) -> list[str]:
        return self.further if run.do == "fit" else []  # a refit gets them from its run

    def _do(self, run: Run, seed: int, folder: Path, made_of: Sequence[tuple[Run, int]]) -> None:
        if run.do == "closed_form":
            ((other, s),) = made_of
            record = closed_form(checkpoint_of(self.folder(other, s)), self.data, _EPS, seed)
            write_json(record, folder / "lightning_logs" / "version_0", _RECORD)
            return
        checkpoints = [str(checkpoint_of(self.folder(*each))) for each in made_of]
        words = [*run.arguments, f"--data.root={self.data}", f"--trainer.default_root_dir={folder}"]
        words += [f"--seed_everything={seed}", *self._of_fit(run)]
        listed = f"[{','.join(checkpoints)}]"
        if run.do == "fit":
            words = ["fit", *words, "--test_after_fit=true", "--ckpt_path=last"]
        elif run.do == "refit":
            words = [
                "refit",
                f"--run={self._last(*made_of[0]).parents[1]}",
                *words,
                "--test_after_fit=true",
                "--ckpt_path=last",
            ]
        elif run.do == "continue":
            begun = newest(folder, "last") is not None
            words = [
                "fit",
                *words,
                "--test_after_fit=true",
                f"--ckpt_path={'last' if begun else self._last(*made_of[0])}",
            ]
        elif run.do == "test":
            words = ["test", f"--ckpt_path={checkpoints[0]}", *words]
        elif run.do == "compare":
            names = run.names or run.of
            words = ["compare", f"--checkpoints={listed}", f"--names=[{','.join(names)}]", *words]
        else:
            ensemble = ["--model.backbone=CheckpointEnsemble", f"--model.backbone.checkpoints={listed}"]
            words = ["test", "--data=MNISTDataModule", *ensemble, "--model.attack=null", *words]
        main(words)

    def _last(self, run: Run, seed: int) -> Path:
        path = newest(self.folder(run, seed), "last")
        if path is None:
            raise ValueError(f"{self.folder(run, seed)} has no last.ckpt to continue from")
        return path


def run_claims(
    ids: Sequence[str],
    seeds: Sequence[int] | None,
    data: Path,
    runs: Path,
    out: Path,
    further: Sequence[str] = (),
    quick: bool = False,
) -> None:
    """Run what claims need, and print their rows.

    Args:
        ids: Ids of claims, or names of runs.
        seeds: Seeds. None: the runs' own, with `quick` only the first.
        data: Folder of the data.
        runs: Folder for the runs.
        out: Folder for the results.
        further: Arguments of `fit`.
        quick: Also run everything that takes seconds.

    Raises:
        ValueError: a claim is unknown or cannot be run; see also `Runner.make`.
    """
    paper = load()
    wanted: list[str] = [run.name for run in paper.runs.values() if quick and run.quick]
    for name in ids:
        wanted += [name] if name in paper.runs.keys() - paper.claims.keys() else _runs_of(paper.claim(name))
    wanted = list(dict.fromkeys(wanted))
    runner = Runner(paper, data, runs, out, further)
    for i, run in enumerate(paper.runs[name] for name in wanted):
        print(f"[{i + 1}/{len(wanted)}] {run.name}", flush=True)
        for seed in seeds or (run.seeds[:1] if quick else run.seeds):
            runner.make(run, seed)
    shown = [row for row in rows(paper, Results(out)) if row.claim.id in ids or (row.run and row.run.name in wanted)]
    show(shown, Console())
    print(f"The results are in {out}.")


def list_claims() -> None:
    """Print all claims with their runs and costs."""
    table = Table("claim", "\u00a7", "what the paper says", "runs", "cost")
    paper = load()
    for claim in paper.claims.values():
        made = [paper.runs[name] for name in claim.runs]
        costs = [f"{run.cost}, {len(run.seeds)} of them" if len(run.seeds) > 1 else run.cost for run in made]
        cost = "\n".join(costs) or f"cannot be run: {_why(claim)}"
        table.add_row(claim.id, claim.section, claim.says, "\n".join(run.name for run in made), cost)
    Console().print(table)


def place(out: Path, run: Run, seed: int) -> Path:
    """Return the file of a run's results. Its name has no seed for seed 0, unless such a file exists."""
    named = out / f"{run.place}_seed{seed}.json"
    return named if seed != 0 or named.is_file() else out / f"{run.place}.json"


def checkpoint_of(folder: Path) -> Path:
    """Return the checkpoint to evaluate of the newest run in a folder: the best, or else the last.

    Raises:
        ValueError: there is no checkpoint.
    """
    found = newest(folder, "best") or newest(folder, "last")
    if found is None:
        raise ValueError(f"there is no checkpoint in {folder}")
    return found


def _runs_of(claim: Claim) -> Sequence[str]:
    if not claim.runs:
        raise ValueError(f"{claim.id} cannot be run: {_why(claim)}")
    return claim.runs


def _why(claim: Claim) -> str:
    return "; ".join(dict.fromkeys(q.missing.why for q in claim.quantities if q.missing is not None))


def _finished(folder: Path) -> dict[str, Any] | None:
    """Return the newest record in the folder of a run; None if it is not finished."""
    found = sorted(folder.glob(f"lightning_logs/version_*/{_RECORD}"), key=lambda path: path.stat().st_mtime)
    return json.loads(found[-1].read_text(encoding="utf-8")) if found else None


def _without_paths(value: Any, known: dict[Path, str]) -> Any:
    """Return a record without the paths of this machine: known folders get a name, other files keep only theirs."""
    if isinstance(value, dict):
        return {name: _without_paths(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each, known) for each in value]
    if not isinstance(value, str):
        return value
    for folder, name in known.items():
        for base in (str(folder.absolute()), str(folder)):
            if value == base or value.startswith(f"{base}{os.sep}"):
                return name + value.removeprefix(base)
    return Path(value).name if Path(value).is_absolute() else value
