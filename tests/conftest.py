"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lightning 2.6 calls jsonargparse in ways that jsonargparse 4.53 deprecates.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
# With a torch thread per core in each of two processes the tests take twice as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes; none for a single file or test, or with -s. With --pdb xdist itself starts none."""
    one = len(config.args) == 1 and ".py" in config.args[0]
    return 0 if one or config.option.capture == "no" else 2


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds MNIST/raw. Tests that need it are skipped if it is missing."""
    root = Path(os.environ.get("ADV_LIGHTNING_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"no MNIST under {root}: set ADV_LIGHTNING_DATA to the folder that holds MNIST/raw")
    return root


@pytest.fixture(autouse=True)
def unseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the seed that an earlier test left in the environment."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
