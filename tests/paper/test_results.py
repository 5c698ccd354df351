"""Selectors find what they name, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adv_lightning.paper.claims import Selector
from adv_lightning.paper.results import Figure, Results, attack_in_words


def attack(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"adv_lightning.attacks.{name}", "init_args": arguments}


FGSM = attack("FGSM", eps=0.25, bounds=None)
CLIPPED = attack("FGSM", eps=0.25, bounds=[0.0, 1.0])


def put(folder: Path, name: str, seed: int, error: float, **further: Any) -> None:
    rows = [
        {"name": "clean", "attack": None, "error": error / 10, "n": 100, "confidence_on_mistakes": None},
        {"name": "small", "attack": attack("FGSM", eps=0.1, bounds=None), "error": 0.9, "n": 10},
        {"name": "own", "attack": FGSM, "error": error, "n": 100, "confidence_on_mistakes": 0.8},
        {"name": "again", "attack": FGSM, "error": 0.99, "n": 10, "confidence_on_mistakes": 0.8},
        {
            "name": "rubbish",
            "attack": None,
            "rubbish": {"distribution": "N(0, I)"},
            "error": 0.5,
            "classes": [0.3, 0.7],
        },
    ]
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"test": rows, "seed": seed, "mode": "eval", **further}), encoding="utf-8")


ROW = {"attack": "FGSM", "eps": 0.25, "bounds": None}


def test_first_row_of_an_attack(tmp_path: Path) -> None:
    put(tmp_path, "deep/net", 0, 0.2)
    put(tmp_path, "deep/net_seed1", 1, 0.3)
    put(tmp_path, "deep/net_refit", 0, 0.4)
    put(tmp_path, "deep/network", 0, 0.5)
    found = Results(tmp_path).find(Selector(("deep/net",), row=ROW))
    under = "FGSM eps 0.25, max norm, not clipped, eval mode"
    assert found == [Figure(0.2, 0, 100, under), Figure(0.3, 1, 100, under)]


def test_first_place_of_each_seed(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, 0.2)
    put(tmp_path, "b", 0, 0.3)
    put(tmp_path, "b_seed1", 1, 0.4)
    assert [f.value for f in Results(tmp_path).find(Selector(("a", "b"), row=ROW))] == [0.2, 0.4]
    assert [f.value for f in Results(tmp_path).find(Selector(("b", "a"), row=ROW))] == [0.3, 0.4]


def test_other_rows_and_fields(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, 0.2, logged={"size": 0.5}, data={"test_part": "train"})
    results = Results(tmp_path)

    def value(**selector: Any) -> Any:
        found = results.find(Selector(("a",), **selector))
        return (found[0].value, found[0].n, found[0].conditions) if found else None

    assert value(row={"name": "clean"}) == (pytest.approx(0.02), 100, "training images, eval mode")
    assert value(row=ROW, field=("confidence_on_mistakes",))[0] == 0.8
    assert value(row={"name": "rubbish"}, field=("classes", 1)) == (
        0.7,
        None,
        "draws from N(0, I), training images, eval mode",
    )
    assert value(table="logged", field=("size",))[0] == 0.5
    assert value(row={"name": "clean"}, field=("confidence_on_mistakes",)) is None
    assert value(row={"attack": "PGD"}) is None
    assert value(row={"name": "rubbish"}, field=("classes", 2)) is None
    assert value(table="nothing", row={"name": "clean"}) is None
    assert value(table="nothing", field=("size",)) is None


def test_agreement_has_its_own_n(tmp_path: Path) -> None:
    row = {"crafted_on": "a", "a": "a", "b": "b", "both_err": {"share": 0.5, "n": 7}, "all": {"share": 0.1, "n": 9}}
    put(tmp_path, "pairs", 0, 0, agreement=[row], attack=FGSM)
    selector = Selector(("pairs",), "agreement", {"crafted_on": "a", "b": "b"}, ("both_err", "share"))
    assert Results(tmp_path).find(selector) == [Figure(0.5, 0, 7, "FGSM eps 0.25, max norm, not clipped, eval mode")]


def test_clipped(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, 0.2)
    results = Results(tmp_path)
    assert results.clipped(Selector(("a",), row=ROW)) == []
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    record["test"].append({"name": "clipped", "attack": CLIPPED, "error": 0.4, "n": 100})
    (tmp_path / "a.json").write_text(json.dumps(record), encoding="utf-8")
    (found,) = Results(tmp_path).clipped(Selector(("a",), row=ROW))
    assert (found.value, found.conditions) == (0.4, "FGSM eps 0.25, max norm, clipped to [0, 1], eval mode")
    assert Results(tmp_path).clipped(Selector(("a",), row={"name": "clean"})) == []


def test_refuses_a_seed_twice(tmp_path: Path) -> None:
    put(tmp_path, "a", 0, 0.2)
    put(tmp_path, "a_seed0", 0, 0.2)
    with pytest.raises(ValueError, match=r"a\.json.*a_seed0\.json.*seed 0"):
        Results(tmp_path).find(Selector(("a",), row=ROW))


def test_missing_folder(tmp_path: Path) -> None:
    assert Results(tmp_path / "none").find(Selector(("deep/a",), row=ROW)) == []


def test_attacks_in_words() -> None:
    assert attack_in_words(attack("PGD", eps=0.1, steps=40, bounds=[0, 1])) == (
        "PGD-40 eps 0.1, max norm, clipped to [0, 1]"
    )
    assert attack_in_words(attack("MemberAttack", attack=FGSM, member=0)) == (
        "MemberAttack of FGSM eps 0.25, max norm, not clipped"
    )
    assert attack_in_words(attack("ScaledGradient", eps=1, norm="l2")) == "ScaledGradient eps 1, L2 norm, not clipped"
    assert attack_in_words(attack("ScaledGradient", eps=1, norm="none")) == "ScaledGradient(eps=1, norm=none)"
    assert attack_in_words(attack("GaussianNoise", std=0.1, seed=0)) == "GaussianNoise(std=0.1, seed=0)"


def test_a_row_says_what_ball_an_attack_stays_in() -> None:
    description = {"class_path": "mypackage.Mine", "init_args": {"size": 0.5}}
    row = {"attack": description, "ball": {"norm": "L2", "eps": 0.5, "bounds": [0, 1]}}
    assert attack_in_words(description, row) == "Mine eps 0.5, L2 norm, clipped to [0, 1]"
    assert attack_in_words(description, {"attack": description, "ball": None}) == "Mine(size=0.5)"
