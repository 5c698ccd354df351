"""The report has every quantity, and the pages are up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adv_lightning.paper.__main__ import main
from adv_lightning.paper.claims import load
from adv_lightning.paper.report import markdown, rows, short, written
from adv_lightning.paper.results import Results
from adv_lightning.paper.verdict import Verdict
from tests.conftest import ROOT

RESULTS = Results(ROOT / "results")
ROWS = list(rows(load(), RESULTS))


@pytest.mark.parametrize("page", ["README.md", "docs/paper.md"])
def test_pages_are_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert written(text, load(), RESULTS) == text, f"stale: run python -m adv_lightning.paper report --write {page}"


def test_a_row_for_each_quantity() -> None:
    table = markdown(load(), RESULTS)
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    quantities = [(claim.id, quantity) for claim in load().claims.values() for quantity in claim.quantities]
    assert len(ROWS) == len(quantities)
    for (name, quantity), line in zip(quantities, lines, strict=False):
        assert line.startswith(f"| `{name}` | ")
        assert f"| {quantity.name} |" in line
    assert all(line.count("|") == lines[0].count("|") for line in lines[: len(quantities)])
    for claim in load().claims.values():
        assert claim.says in table


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.claim.id}-{row.quantity.name}")
def test_a_figure_has_its_conditions(row: object) -> None:
    assert isinstance(row, type(ROWS[0]))
    cells = row.cells()
    if row.judgement.verdict in (Verdict.NOT_RUN, Verdict.NOT_BUILT, Verdict.PICTURE):
        assert cells["measured"] == "-"
        assert cells["remark"]
        assert ("python -m adv_lightning.paper run " in cells["remark"]) == (row.judgement.verdict is Verdict.NOT_RUN)
        return
    assert cells["seeds"].startswith("seed")
    assert len(row.figures) == 1 or "\u00b1" in cells["measured"]
    assert "mode" in cells["under"]
    attack = row.quantity.measured.row.get("attack") if row.quantity.measured and row.quantity.measured.row else None
    if attack:
        assert f"{attack}" in cells["under"]
        assert "eps" in cells["under"]
        assert "max norm" in cells["under"]
        assert "clipped" in cells["under"]
        assert int(cells["n"]) >= 1000
        assert any(word in row.quantity.name for word in (attack, "attacked"))


def test_short_counts_all_rows() -> None:
    made = short(load(), RESULTS)
    assert made.startswith(f"{len(ROWS)} rows: ")
    counts = [int(part.split()[0]) for part in made.splitlines()[0].partition(": ")[2].split(", ")]
    assert sum(counts) == len(ROWS)
    assert "PGD" in made  # FGSM alone would mislead
    assert "AutoAttack" in made


def test_without_results(tmp_path: Path) -> None:
    found = {row.judgement.verdict for row in rows(load(), Results(tmp_path))}
    assert found == {Verdict.NOT_RUN, Verdict.NOT_BUILT, Verdict.PICTURE}


def test_needs_markers() -> None:
    with pytest.raises(ValueError, match="marker"):
        written("nothing", load(), RESULTS)
    with pytest.raises(ValueError, match="marker"):
        written("<!-- paper: begin -->", load(), RESULTS)


@pytest.mark.parametrize("columns", ["80", "160"])
def test_prints_and_writes(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["report", "--results", str(ROOT / "results")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in load().claims)
    assert f"{len(ROWS)} rows: " in printed
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- paper-short: begin -->\n<!-- paper-short: end -->\nb\n", encoding="utf-8")
    assert main(["report", "--results", str(ROOT / "results"), "--write", str(page)]) == 0
    assert short(load(), RESULTS) in page.read_text(encoding="utf-8")
    assert main(["report", "--results", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["report"]])
def test_help_and_report_import_no_torch(words: list[str]) -> None:
    code = (
        "import sys, contextlib, io\nfrom adv_lightning.paper.__main__ import main\n"
        f"with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main({words!r})\n"
        "print(sorted({'torch', 'lightning', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
