"""How long it takes until something happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.report import Section, Table
from benchmarks.timing import Run, interleaved

ROOT = Path(__file__).parents[1]
PRINT = ["fit", "--print_config", "--config", "configs/digits.yaml"]
COMMANDS = {
    "`import adv_lightning`": ["-c", "import adv_lightning"],
    "`import torch`": ["-c", "import torch"],
    "`import lightning`": ["-c", "import lightning"],
    "`python -m adv_lightning --help`": ["-m", "adv_lightning", "--help"],
    "`python -m adv_lightning fit --help`": ["-m", "adv_lightning", "fit", "--help"],
    f"`python -m adv_lightning {' '.join(PRINT)}`": ["-m", "adv_lightning", *PRINT],
}


def call(args: Sequence[str]) -> None:
    """Run Python in a process of its own, and raise if it fails."""
    subprocess.run([sys.executable, *args], check=True, capture_output=True, cwd=ROOT, timeout=300)


def measure(run: Run) -> Section:
    """Time commands and imports, each in a fresh process."""
    commands = {name: args for name, args in COMMANDS.items() if not run.quick or args[-1] == "import adv_lightning"}
    contestants = {name: run.timed(partial(call, args)) for name, args in commands.items()}
    found = interleaved(contestants, run.rounds_of(3), warmup=0)
    table = Table(["command", "s"], [[name, spread.show()] for name, spread in found.items()])
    return Section("Start-up", [table], ["Each in a fresh process, Python's own start included."], raw=found)
