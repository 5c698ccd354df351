"""The tracked evaluations of docs/judging.md show what the page says of them."""

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
def test_no_trained_net_is_taken_for_masked(path: Path) -> None:
    masking = json.loads(path.read_text(encoding="utf-8"))["masking"]
    assert masking["verdict"].startswith("No sign of masked gradients in ")
    assert {check["outcome"] for check in masking["checks"]} <= {"passed", "caution"}


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: path.stem)
def test_a_stronger_attack_does_more_harm(path: Path) -> None:
    error = first_thousand(path)
    assert error["FGSM"] < error["PGD"] + 0.01
    assert error["PGD"] <= error["AutoAttack"] + 0.01
    assert error["AutoAttack"] > 0.95
    trained = path.stem.startswith("maxout_adv")
    assert (error["FGSM"] < 0.5) == trained


def test_plain_and_adversarially_trained_nets_are_among_them() -> None:
    names = {path.stem for path in JUDGED}
    assert {"maxout_plain", "maxout_adv", "maxout_plain_wide", "maxout_adv_wide", "maxout_adv_wide_seed3"} <= names
