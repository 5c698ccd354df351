"""The public names of before still lead somewhere, and type checkers see all of them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import adv_lightning
from tests.conftest import ROOT

STORED = ROOT / "tests" / "support" / "stored" / "public_names_0_1.txt"
"""A module and a name a line: what `__all__` held before files moved."""
MOVED = {"adv_lightning.callbacks AdversarialPictures"}  # to adv_lightning.evaluation, as the changelog says


def test_every_former_name_is_still_there() -> None:
    lines = set(STORED.read_text(encoding="utf-8").splitlines()) - MOVED
    assert len(lines) > 120
    for line in sorted(lines):
        module, name = line.split()
        assert hasattr(importlib.import_module(module), name), line


@pytest.mark.slow
def test_type_checkers_see_every_name(tmp_path: Path) -> None:
    uses = [f"reveal_type(adv_lightning.{name})" for name in adv_lightning.__all__]
    (tmp_path / "user.py").write_text("\n".join(["import adv_lightning", *uses]), encoding="utf-8")
    # With the project's settings alone, so that what `mypy` has found before is used again.
    command = [sys.executable, "-m", "mypy", str(tmp_path / "user.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count("Revealed type") == len(uses)
    assert '"Any"' not in done.stdout
