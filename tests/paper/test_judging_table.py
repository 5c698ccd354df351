"""The tracked evaluations agree with docs/judging.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

JUDGED = sorted((ROOT / "results" / "judged").glob("*.json"))


def first_thousand(path: Path) -> dict[str, Any]:
    """Error under each attack at eps 0.25 on the first 1,000 test images."""
    rows = [row for row in json.loads(path.read_text(encoding="utf-8"))["test"] if row["n"] == 1000 and row["attack"]]
    known = {}
    for row in rows:
        arguments = row["attack"]["init_args"]
        if arguments["eps"] == 0.25 and arguments.get("steps", 40) == 40:
            assert arguments["bounds"] is None
            known[row["attack"]["class_path"].rpartition(".")[2]] = row["error"]
    return known


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: path.stem)
def test_no_net_masks_its_gradients(path: Path) -> None:
    masking = json.loads(path.read_text(encoding="utf-8"))["masking"]
    assert masking["verdict"].startswith("No sign of masked gradients in ")
    assert {check["outcome"] for check in masking["checks"]} <= {"passed", "caution"}


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: path.stem)
def test_stronger_attacks_find_more_errors(path: Path) -> None:
    error = first_thousand(path)
    assert error["FGSM"] < error["PGD"] + 0.01
    assert error["PGD"] <= error["AutoAttack"] + 0.01
    assert error["AutoAttack"] > 0.95
    trained = path.stem.startswith("maxout_adv")
    assert (error["FGSM"] < 0.5) == trained


def test_plain_and_adversarial_nets_are_tracked() -> None:
    names = {path.stem for path in JUDGED}
    assert {"maxout_plain", "maxout_adv", "maxout_plain_wide", "maxout_adv_wide", "maxout_adv_wide_seed3"} <= names
