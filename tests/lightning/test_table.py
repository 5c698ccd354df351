"""The table in docs/lightning.md and the tests beside this one name the same switches."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT


def documented() -> dict[str, str]:
    """The verdict of each switch, from the table."""
    lines = (ROOT / "docs" / "lightning.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert all(len(row) == 3 for row in rows)
    names = [row[0].replace("`", "") for row in rows]
    assert len(set(names)) == len(names)
    return dict(zip(names, (row[1] for row in rows), strict=True))


def marked() -> dict[str, str]:
    """The verdict of each switch, from the tests' marks `switch(verdict, *names)`."""
    found = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.switch":
                verdict, *names = map(ast.literal_eval, node.args)
                found |= dict.fromkeys(names, verdict)
    return found


def test_each_row_has_a_test() -> None:
    assert {name: verdict for name, verdict in documented().items() if verdict != "not tested"} == marked()
