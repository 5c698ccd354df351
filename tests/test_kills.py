"""Kills at random moments: the continued training ends as if nothing had happened (tests/kills.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def killed(folder: Path, processes: int, seed: int, *kinds: str) -> list[str]:
    """End trainings in these ways, continue them, and return a line for each."""
    # In a process of its own, which has no threads when it forks. The number of threads decides the last bits.
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kills", str(folder), str(processes), str(seed), *kinds],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def assert_same(lines: list[str], number: int) -> None:
    print("\n".join(lines))
    assert len(lines) == number
    assert [line for line in lines if not line.startswith("same")] == []


def test_three_ends_and_continuations(tmp_path: Path) -> None:
    assert_same(killed(tmp_path, 1, 1, "kill", "int", "writing"), 3)


@pytest.mark.slow
def test_twenty_ends_and_continuations(tmp_path: Path) -> None:
    kinds = ["kill", "kill", "kill", "term", "int", "kill", "writing"] * 3
    assert_same(killed(tmp_path, 1, 2, *kinds[1:]), 20)


@pytest.mark.slow
def test_five_ends_of_two_processes(tmp_path: Path) -> None:
    assert_same(killed(tmp_path, 2, 3, "kill", "rank", "writing", "rank", "kill"), 5)
