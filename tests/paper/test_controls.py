"""The tracked runs of docs/controls.md agree with the paper, within tolerances that were fixed before they ran."""

from __future__ import annotations

import json
from statistics import mean
from typing import Any

import pytest

from tests.conftest import ROOT


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "results" / "controls" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def row(name: str, attack: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in record(name)["test"] if row["name"] == attack)
    return found


def test_softmax_regression_under_fgsm() -> None:
    fgsm = row("mnist_softmax", "FGSM")
    assert (fgsm["attack"]["init_args"], fgsm["n"]) == ({"eps": 0.25, "bounds": None}, 10000)
    assert fgsm["error"] == pytest.approx(0.999, abs=0.003)
    assert fgsm["confidence_on_mistakes"] == pytest.approx(0.793, abs=0.03)


def test_logistic_regression_of_threes_and_sevens() -> None:
    assert record("mnist_logistic")["data"]["classes"] == [3, 7]
    assert row("mnist_logistic", "clean")["error"] == pytest.approx(0.016, abs=0.004)
    assert row("mnist_logistic", "FGSM")["error"] == pytest.approx(0.99, abs=0.01)


def test_rbf_assigns_no_rubbish_to_a_class() -> None:
    rubbish = row("mnist_rbf", "rubbish")
    assert (rubbish["error"], rubbish["n"]) == (0, 10000)


@pytest.mark.parametrize("noise", ["sign", "uniform"])
def test_noise_training_does_not_resist_fgsm(noise: str) -> None:
    trained = record(f"noise_{noise}")
    assert trained["training"]["epochs"] >= 100
    assert row(f"noise_{noise}", "FGSM")["error"] > 0.75
    adversarial = json.loads((ROOT / "results" / "mnist_maxout_adv.json").read_text(encoding="utf-8"))
    assert adversarial["training"]["epochs"] >= 100
    assert next(row for row in adversarial["test"] if row["name"] == "FGSM")["error"] < 0.25


def test_units_grow_under_additive_perturbation_only() -> None:
    name = "test/activation/net.maxout1"
    sizes = {
        rule: mean(record(f"hidden_{rule}_seed{seed}")["logged"][name] for seed in range(3))
        for rule in ("fgsm", "rotation", "none")
    }
    assert sizes["fgsm"] >= 1.5 * sizes["none"]
    assert sizes["rotation"] <= 1.1 * sizes["none"]


def test_l1_keeps_the_training_error_high() -> None:
    penalised, control = record("l1"), record("l1_control")
    for trained in (penalised, control):
        assert trained["data"]["test_part"] == "train"
        assert trained["seed"] == 0
    assert penalised["training"]["epochs"] == control["training"]["epochs"]
    assert row("l1", "clean")["error"] > 0.05 > row("l1_control", "clean")["error"]
