"""`python -m benchmarks.identical` finds what a change alters, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import identical

CASES = ["maxout", "batch norm"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("identical") / "record.json"
    assert identical.run(["--record", str(path), "--cases", *CASES]) == 0
    return path


def test_the_same_code_is_identical(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert identical.run(["--check", str(record)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: identical" for name in CASES]


def test_names_what_differs(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = json.loads(record.read_text())
    assert len(recorded["maxout"]["losses"]) == identical.STEPS
    recorded["maxout"]["losses"][3] = (0.5).hex()
    recorded["maxout"]["figures"]["val/error"] = (0.5).hex()
    recorded["batch norm"]["weights"] = "0" * 64
    (tmp_path / "tampered.json").write_text(json.dumps(recorded))
    assert identical.run(["--check", str(tmp_path / "tampered.json")]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("maxout: loss of step 3: 0.5 was recorded")
    assert first.endswith("; val/error")
    assert second == "batch norm: weights"


def test_refuses_an_unknown_case(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        identical.run(["--check", str(record), "--cases", "pgd"])
    assert "pgd" in capsys.readouterr().err
