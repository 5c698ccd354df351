"""Trainings that end at random moments go on with the same bits (tests/support/kills.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

KINDS = {1: ["kill"] * 11 + ["term", "int", "writing", "written"] * 3, 2: ["kill", "rank", "writing", "rank", "kill"]}


@pytest.mark.parametrize("processes", KINDS)
def test_goes_on_with_the_same_bits(processes: int, tmp_path: Path) -> None:
    kinds = KINDS[processes]
    # A process of its own has no threads when it forks. The number of threads decides the last bits.
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kills", str(tmp_path), str(processes), str(1 + processes), *kinds],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    lines = done.stdout.splitlines()
    assert len(lines) == len(kinds)
    assert [line for line in lines if not line.startswith("same")] == []
