"""README's table of results is generated, and never stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adv_lightning.paper.table import BEGIN, END, replace_table, table
from tests.conftest import ROOT


def test_readme_shows_what_results_hold() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replace_table(text, table(ROOT / "results")) == text, (
        "stale: run python -m adv_lightning.paper.table --write README.md"
    )


def test_a_row_for_every_run(tmp_path: Path) -> None:
    record = json.loads(next((ROOT / "results").glob("*.json")).read_text(encoding="utf-8"))
    record["test"][0]["error"] = 0.0123
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    rows = table(tmp_path).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["`one`", "`two`"]
    assert all("1.23%" in row for row in rows)


def test_markers_are_needed() -> None:
    assert replace_table(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="markers"):
        replace_table("no markers", "new")
