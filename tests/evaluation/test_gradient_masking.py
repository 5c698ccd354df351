"""Checks for masked gradients: every outcome on rows made by hand, and networks with and without masked gradients."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from adv_lightning.attacks import (
    EOTPGD,
    FGSM,
    PGD,
    Attack,
    GaussianNoise,
    MemberAttack,
    Rotation,
    ScaledGradient,
    SignNoise,
    SingleStepAttack,
    TargetedFGSM,
    UniformNoise,
    input_gradient,
)
from adv_lightning.attacks.threat_model import Ball
from adv_lightning.evaluation.dead_pixels import DeadPixels
from adv_lightning.evaluation.gradient_masking import masking_checks, verdict
from adv_lightning.evaluation.gradient_masking_counts import Check
from adv_lightning.evaluation.missed_examples import MissedExamples
from adv_lightning.evaluation.row_threat_model import described, threat_model_of
from adv_lightning.evaluation.transferred_attack import Transferred
from adv_lightning.losses import SoftmaxLoss
from adv_lightning.metrics import wilson_interval
from tests.conftest import ROOT

NAMES = ["PGD against FGSM", "more steps", "large eps", "growing eps", "transfer and noise", "label leaking"]
BOX = (0.0, 1.0)
COUNTS: dict[str, Any] = {
    "zero_gradients": (0, 1000),
    "missed": MissedExamples(found=500, passed_over=10, missed=0, n=1000),
    "two_answers": (0, 1000),
    "dead_pixels": DeadPixels(dead=4, probed=4, reacting=0, pixels=64),
}


def row(attack: Attack | dict[str, Any] | None, error: float, n: int = 1000) -> dict[str, Any]:
    """A row of results; one from before rows contained facts, if only a description of the attack is given."""
    said = {"attack": attack} if isinstance(attack, dict) else described(attack)
    interval = list(wilson_interval(round(error * n), n))
    name = "clean" if attack is None else said["attack"]["class_path"]
    return {"name": name, **said, "error": error if n else math.nan, "interval": interval, "n": n}


def clean(error: float, n: int = 1000) -> dict[str, Any]:
    return row(None, error, n)


def transferred(attack: Attack) -> Attack:
    return Transferred(str(Path(__file__)), attack)  # the checkpoint is read only when the attack is called


def elsewhere(attack: Attack) -> dict[str, Any]:
    """An old row's description of an attack whose class cannot be imported."""
    return attack.config() | {"class_path": f"mypackage.{type(attack).__name__}"}


def found(name: str, *rows: dict[str, Any], **kwargs: Any) -> Check:
    (check,) = [check for check in masking_checks(rows, **kwargs) if check.name == name]
    return check


def outcomes(*rows: dict[str, Any], **kwargs: Any) -> dict[str, str]:
    return {check.name: check.outcome for check in masking_checks(rows, **kwargs)}


# 1 PGD against FGSM


def test_pgd_weaker_than_fgsm_is_masked() -> None:
    check = found("PGD against FGSM", row(FGSM(0.25), 0.81), row(PGD(0.25), 0.68))
    assert check.outcome == "masked"
    assert re.search(
        r"weaker.* 68\.00% \[65\.04%, 70\.82%\] under PGD\(eps=0\.25, .*steps=40.*\), n=1000, "
        r"against 81\.00% \[78\.45%, 83\.31%\] under FGSM\(eps=0\.25.*\), n=1000\.$",
        check.words,
    )


@pytest.mark.parametrize("error", [0.9, 0.81, 0.78])
def test_pgd_as_strong_within_the_margin_passes(error: float) -> None:
    check = found("PGD against FGSM", row(FGSM(0.25), 0.81), row(PGD(0.25), error))
    assert check.outcome == "passed"
    assert f"{error:.2%}" in check.words
    assert "81.00% [78.45%, 83.31%] under FGSM(eps=0.25, bounds=None), n=1000" in check.words


@pytest.mark.parametrize(
    "pgd",
    [
        PGD(0.3),
        PGD(0.25, bounds=BOX),
        PGD(0.25, 0.025, steps=10),  # from a random start, it cannot reach the corner that FGSM steps to
        PGD(0.25, 0.0625, steps=7),
        MemberAttack(PGD(0.25)),
        transferred(PGD(0.25)),
        elsewhere(PGD(0.25)),
    ],
)
def test_not_comparable_with_fgsm(pgd: Attack | dict[str, Any]) -> None:
    assert found("PGD against FGSM", row(FGSM(0.25), 0.81), row(pgd, 0.1)).outcome == "not run"


@pytest.mark.parametrize(
    "pgd",
    [
        PGD(0.25, steps=20),
        PGD(0.25, steps=10, random_start=False),
        PGD(0.25, step_size=0.05, steps=10, seed=7),
        PGD(0.25, restarts=3),
    ],
)
def test_pgd_that_can_cross_its_ball_is_compared(pgd: PGD) -> None:
    assert found("PGD against FGSM", row(FGSM(0.25), 0.81), row(pgd, 0.1)).outcome == "masked"


@pytest.mark.parametrize("eps", [0.11, 0.23, 0.3, 0.46])
def test_rounding_does_not_shorten_the_reach(eps: float) -> None:
    assert found("PGD against FGSM", row(FGSM(eps), 0.81), row(PGD(eps, steps=20), 0.1)).outcome == "masked"


def test_only_the_strongest_pgd_counts() -> None:
    rows = [row(FGSM(0.25), 0.81), row(PGD(0.25, steps=20, seed=1), 0.6), row(PGD(0.25, seed=2), 0.9)]
    assert found("PGD against FGSM", *rows).outcome == "passed"
    assert "90.00%" in found("PGD against FGSM", *rows).words


def test_the_worst_eps_is_reported() -> None:
    rows = [row(FGSM(eps), 0.5) for eps in (0.1, 0.2, 0.3)]
    rows += [row(PGD(0.1), 0.6), row(PGD(0.2), 0.2), row(PGD(0.3), 0.4)]
    check = found("PGD against FGSM", *rows)
    assert check.outcome == "masked"
    assert "20.00%" in check.words
    assert "FGSM(eps=0.2, " in check.words


def test_eps_and_bounds_are_compared_as_numbers() -> None:
    fgsm, pgd = FGSM(0.3, BOX).config(), PGD("3/10", bounds=(0, 1)).config()
    fgsm["init_args"] |= {"eps": 0.1 + 0.2, "bounds": [0, 1]}
    assert fgsm["init_args"]["eps"] != pgd["init_args"]["eps"]
    assert found("PGD against FGSM", row(fgsm, 0.8), row(pgd, 0.1)).outcome == "masked"


def test_missing_arguments_have_their_defaults() -> None:
    pgd = {"class_path": "adv_lightning.PGD", "init_args": {"eps": 0.25}}
    assert found("PGD against FGSM", row(FGSM(0.25), 0.8), row(pgd, 0.1)).outcome == "masked"


# Rows of different n


def test_different_examples_give_a_caution() -> None:
    check = found("PGD against FGSM", row(FGSM(0.25), 0.81, 10_000), row(PGD(0.25), 0.6))
    assert check.outcome == "caution"
    assert "not on the same examples" in check.words
    assert "n=10000" in check.words


def test_the_same_examples_decide() -> None:
    rows = [row(FGSM(0.25), 0.81, 10_000), row(FGSM(0.25), 0.81), row(PGD(0.25), 0.6)]
    assert found("PGD against FGSM", *rows).outcome == "masked"


def test_names_the_row_on_the_same_examples() -> None:
    check = found("PGD against FGSM", row(FGSM(0.25), 0.8), row(PGD(0.25), 0.5), row(PGD(0.25), 0.6, 10_000))
    assert check.outcome == "masked"
    assert "50.00%" in check.words


def test_a_wide_gap_on_few_examples_hides_no_clear_one() -> None:
    few, many = (FGSM(0.1), PGD(0.1)), (FGSM(0.2), PGD(0.2))
    rows = [row(few[0], 0.8, 10), row(few[1], 0.5, 10), row(many[0], 0.8), row(many[1], 0.6)]
    check = found("PGD against FGSM", *rows)
    assert check.outcome == "masked"
    assert "60.00%" in check.words


def test_strength_on_other_examples_counts() -> None:
    rows = [row(FGSM(0.25), 0.18, 10_000), row(transferred(FGSM(0.25)), 0.4, 10_000), row(PGD(0.25), 0.98)]
    assert found("transfer and noise", *rows).outcome == "passed"


def test_few_examples_prove_nothing() -> None:
    assert found("PGD against FGSM", row(FGSM(0.25), 0.8, 10), row(PGD(0.25), 0.5, 10)).outcome == "passed"


# 2 more steps


def test_weaker_with_more_steps_is_masked() -> None:
    check = found("more steps", row(PGD(0.1, steps=10), 0.6), row(PGD(0.1, steps=40), 0.4))
    assert check.outcome == "masked"
    assert re.search(r"40\.00% \[37\.01%, 43\.07%\] under PGD\(eps=0\.1, .*steps=40.*against 60\.00%", check.words)


@pytest.mark.parametrize("error", [0.58, 0.6, 0.8])
def test_as_strong_with_more_steps_passes(error: float) -> None:
    assert found("more steps", row(PGD(0.1, steps=10), 0.6), row(PGD(0.1, steps=40), error)).outcome == "passed"


@pytest.mark.parametrize(
    "longer",
    [
        PGD(0.2, steps=40),
        PGD(0.1, steps=40, bounds=BOX),
        PGD(0.1, steps=10, seed=1),
        PGD(0.1, steps=40, random_start=False),
        PGD(0.1, steps=40, step_size=0.05),  # longer steps may overshoot
        PGD(0.1, steps=40, step_size=0.0025),  # shorter ones may not arrive
        MemberAttack(PGD(0.1, steps=40)),
        elsewhere(PGD(0.1, steps=40)),
    ],
)
def test_runs_that_differ_in_more_than_steps_are_not_compared(longer: Attack | dict[str, Any]) -> None:
    short = row(PGD(0.1, steps=10), 0.6)
    assert found("more steps", short, row(longer, 0.1)).outcome == "not run"


def test_fewer_restarts_are_an_excuse() -> None:
    short, long = PGD(0.1, steps=10, restarts=5), PGD(0.1, steps=40)
    assert found("more steps", row(short, 0.6), row(long, 0.1)).outcome == "not run"
    short, long = PGD(0.1, steps=10), PGD(0.1, steps=40, restarts=5)
    assert found("more steps", row(short, 0.6), row(long, 0.1)).outcome == "masked"


def test_seeds_and_shorter_steps_are_no_excuse() -> None:
    short, long = PGD(0.1, steps=10, step_size=0.025), PGD(0.1, steps=40, step_size=0.01, seed=3)
    assert found("more steps", row(short, 0.6), row(long, 0.1)).outcome == "masked"


# 3 large eps


@pytest.mark.parametrize(("error", "outcome"), [(0.9, "masked"), (0.94, "passed"), (0.95, "passed"), (1.0, "passed")])
@pytest.mark.parametrize("bounds", [None, BOX])
def test_half_the_range_must_fool_nearly_all(error: float, outcome: str, bounds: Any) -> None:
    check = found("large eps", row(PGD(0.5, bounds=bounds), error))
    assert check.outcome == outcome
    assert f"{error:.2%} [" in check.words
    assert "n=1000" in check.words


@pytest.mark.parametrize("pgd", [PGD(0.25), PGD(0.5, bounds=(-1, 1)), PGD(0.5, 0.05, steps=10), FGSM(0.5)])
def test_smaller_eps_and_reach_may_leave_some(pgd: Attack) -> None:
    assert found("large eps", row(pgd, 0.1)).outcome == "not run"


def test_large_eps_is_an_argument() -> None:
    assert found("large eps", row(PGD(0.25), 0.1), large_eps=0.25).outcome == "masked"
    assert found("large eps", row(PGD(1.0, bounds=(-1, 1)), 0.1)).outcome == "masked"
    assert found("large eps", row(PGD(1.0), 0.1), large_eps=math.inf).outcome == "not run"


def test_the_strongest_at_each_large_eps_counts() -> None:
    rows = [row(PGD(0.5, steps=20), 0.9), row(PGD(0.5), 1.0)]
    assert found("large eps", *rows).outcome == "passed"
    assert found("large eps", *rows, row(PGD(0.6), 0.9)).outcome == "masked"


# 4 growing eps


def test_fgsm_weaker_at_a_larger_eps_is_a_caution() -> None:
    check = found("growing eps", row(FGSM(0.3), 0.1), row(FGSM(0.05), 0.2), row(FGSM(0.1), 0.4))
    assert check.outcome == "caution"
    assert "10.00% [8.29%, 12.02%] under FGSM(eps=0.3, bounds=None), n=1000, against 40.00%" in check.words
    assert "do not trust it" in check.words


@pytest.mark.parametrize("error", [0.38, 0.4, 0.9])
def test_fgsm_as_strong_at_a_larger_eps_passes(error: float) -> None:
    assert found("growing eps", row(FGSM(0.1), 0.4), row(FGSM(0.3), error)).outcome == "passed"


def test_growing_eps_needs_two_eps_and_the_same_bounds() -> None:
    assert found("growing eps", row(FGSM(0.1), 0.4), row(FGSM(0.3, BOX), 0.1)).outcome == "not run"
    assert found("growing eps", row(FGSM(0.1), 0.4), row(FGSM(0.1), 0.1, 100)).outcome == "not run"


# 5 transfer and noise


@pytest.mark.parametrize(
    "other",
    [
        SignNoise(0.1),
        UniformNoise(0.1),
        transferred(FGSM(0.1)),
        transferred(PGD(0.1, steps=3)),
        MemberAttack(FGSM(0.1)),
    ],
)
@pytest.mark.parametrize("white", [FGSM(0.1), PGD(0.1)])
def test_transfer_and_noise_must_not_be_stronger(white: Attack, other: Any) -> None:
    name = "transfer and noise"
    assert found(name, row(white, 0.2), row(other, 0.4)).outcome == "masked"
    assert "20.00% [17.64%, 22.59%]" in found(name, row(white, 0.2), row(other, 0.4)).words
    for error in (0.1, 0.2, 0.23):
        assert found(name, row(white, 0.2), row(other, error)).outcome == "passed"


def test_the_stronger_of_fgsm_and_pgd_counts() -> None:
    noise = row(SignNoise(0.1), 0.5)
    assert found("transfer and noise", noise, row(FGSM(0.1), 0.2), row(PGD(0.1), 0.9)).outcome == "passed"
    assert found("transfer and noise", noise, row(FGSM(0.1), 0.9), row(PGD(0.1), 0.2)).outcome == "passed"
    assert found("transfer and noise", noise, row(FGSM(0.1), 0.3), row(PGD(0.1), 0.2)).outcome == "masked"


@pytest.mark.parametrize(
    "other",
    [
        SignNoise(0.2),
        SignNoise(0.1, BOX),
        GaussianNoise(0.1),
        ScaledGradient(0.1),
        transferred(FGSM(0.2)),
        transferred(FGSM(0.1, BOX)),
        transferred(ScaledGradient(0.1)),
        MemberAttack(Rotation(0.1)),
        elsewhere(SignNoise(0.1)),
    ],
)
def test_other_balls_and_norms_are_not_compared(other: Any) -> None:
    assert found("transfer and noise", row(FGSM(0.1), 0.2), row(other, 0.9)).outcome == "not run"


def test_pgd_that_cannot_cross_may_be_weaker_than_noise() -> None:
    assert found("transfer and noise", row(PGD(0.1, 0.02, steps=5), 0.2), row(SignNoise(0.1), 0.9)).outcome == "not run"


# 6 label leaking


@pytest.mark.parametrize(
    "attack", [FGSM(0.1), PGD(0.1, steps=2), ScaledGradient(1.0), Rotation(0.1), transferred(FGSM(0.1))]
)
def test_less_error_than_clean_is_a_caution(attack: Any) -> None:
    check = found("label leaking", clean(0.1), row(attack, 0.02))
    assert check.outcome == "caution"
    assert "label leaking" in check.words
    assert "2.00% [1.30%, 3.07%] under" in check.words
    assert "against 10.00% [8.29%, 12.02%] on clean examples, n=1000" in check.words
    for error in (0.08, 0.1, 0.5):
        assert found("label leaking", clean(0.1), row(attack, error)).outcome == "passed"


@pytest.mark.parametrize(
    "attack", [SignNoise(0.1), GaussianNoise(0.1), TargetedFGSM(0.1, 3), transferred(UniformNoise(0.1))]
)
def test_attacks_without_labels_leak_none(attack: Any) -> None:
    assert found("label leaking", clean(0.5), row(attack, 0.1)).outcome == "not run"


def test_prefers_clean_rows_on_the_same_examples() -> None:
    attacked = row(FGSM(0.1), 0.1)
    assert found("label leaking", clean(0.3, 10_000), clean(0.1), attacked).outcome == "passed"
    assert found("label leaking", clean(0.1, 10_000), clean(0.3), attacked).outcome == "caution"
    assert "not on the same" in found("label leaking", clean(0.3, 10_000), attacked).words


# 7 zero gradients


@pytest.mark.parametrize(
    ("count", "outcome"), [(0, "passed"), (50, "passed"), (60, "passed"), (80, "masked"), (1000, "masked")]
)
def test_zero_gradients(count: int, outcome: str) -> None:
    low, high = wilson_interval(count, 1000)
    check = found("zero gradients", zero_gradients=(count, 1000))
    assert check.outcome == outcome
    assert f"{count / 1000:.2%} [{low:.2%}, {high:.2%}], n=1000" in check.words


# All checks


def healthy() -> list[dict[str, Any]]:
    return [
        clean(0.01),
        row(FGSM(0.1), 0.5),
        row(FGSM(0.25), 0.9),
        row(PGD(0.25, steps=20), 0.97),
        row(PGD(0.25), 0.98),
        row(PGD(0.5), 1.0),
        row(SignNoise(0.25), 0.05),
        row(transferred(FGSM(0.25)), 0.4),
    ]


def test_healthy_rows_pass_every_check() -> None:
    checks = masking_checks(healthy(), **COUNTS)
    counted = ["zero gradients", "missed examples", "same input twice", "dead pixels"]
    assert [check.name for check in checks] == [*NAMES, *counted]
    assert {check.outcome for check in checks} == {"passed"}
    assert verdict(checks) == "No sign of masked gradients in 10 checks."


# What is counted


@pytest.mark.parametrize(
    ("labels", "error", "outcome"),
    [
        (None, 0.5, "masked"),
        ([500, 500], 0.5, "passed"),  # the one image that all share gets one of two answers
        ([500, 500], 0.4, "masked"),
        ([900, 100], 0.11, "passed"),
        ([100] * 10, 0.85, "masked"),
        ([100] * 10, 0.89, "passed"),
        ([0, 1000], 0.0, "not run"),
    ],
)
def test_large_eps_leaves_the_commonest_class_right(labels: list[int] | None, error: float, outcome: str) -> None:
    assert found("large eps", row(PGD(0.5, bounds=BOX), error), labels=labels).outcome == outcome


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        (MissedExamples(500, 0, 0, 1000), "passed"),
        (MissedExamples(500, 200, 150, 1000), "masked"),
        (MissedExamples(500, 200, 90, 1000), "caution"),  # a different loss and restarts find them
        (MissedExamples(500, 170, 110, 1000), "passed"),  # within the interval
        (MissedExamples(20, 15, 15, 1000), "passed"),  # too few of all
        (MissedExamples(0, 0, 0, 1000), "passed"),
        (MissedExamples(0, 0, 0, 0), "not run"),
        (None, "not run"),
    ],
)
def test_missed_examples(counts: MissedExamples | None, outcome: str) -> None:
    check = found("missed examples", missed=counts)
    assert check.outcome == outcome
    if counts is not None and counts.n:
        assert f"fools {counts.found} of {counts.n} inputs" in check.words


@pytest.mark.parametrize(
    ("counts", "outcome"),
    [
        (DeadPixels(0, 0, 0, 64), "passed"),
        (DeadPixels(40, 40, 0, 64), "passed"),  # the corners of digits: no gradient, and no reaction
        (DeadPixels(40, 40, 40, 64), "masked"),
        (DeadPixels(3, 3, 3, 64), "passed"),
        (DeadPixels(4, 4, 4, 64), "masked"),
        (None, "not run"),
    ],
)
def test_dead_pixels(counts: DeadPixels | None, outcome: str) -> None:
    assert found("dead pixels", dead_pixels=counts).outcome == outcome


def test_random_answers_are_a_caution_and_masked_if_one_draw_misleads() -> None:
    once, mean = PGD(0.25, 0.025), EOTPGD(0.25, 0.025)
    assert found("same input twice", two_answers=(0, 100)).outcome == "passed"
    assert found("same input twice", two_answers=(1, 100)).outcome == "caution"
    assert found("same input twice", row(once, 0.5), row(mean, 0.52), two_answers=(90, 100)).outcome == "caution"
    check = found("same input twice", row(once, 0.5), row(mean, 0.7), two_answers=(90, 100))
    assert check.outcome == "masked"
    assert "weaker than along a mean" in check.words
    assert found("same input twice").outcome == "not run"


def test_the_order_of_rows_does_not_matter() -> None:
    rows = healthy()
    assert masking_checks(rows[::-1]) == masking_checks(rows)


def test_equal_errors_raise_nothing() -> None:
    rows = [one | {"error": 0.97, "interval": list(wilson_interval(970, 1000))} for one in healthy()]
    assert set(outcomes(*rows, **COUNTS | {"zero_gradients": (50, 1000)}).values()) == {"passed"}


def test_touching_intervals_raise_nothing() -> None:
    low, high = row(PGD(0.25), 0.4), row(FGSM(0.25), 0.5)
    high["interval"][0] = low["interval"][1]
    assert found("PGD against FGSM", low, high).outcome == "passed"
    high["interval"][0] += 1e-12
    assert found("PGD against FGSM", low, high).outcome == "masked"


def test_without_rows_each_check_says_what_is_missing() -> None:
    checks = {check.name: check for check in masking_checks([])}
    assert {check.outcome for check in checks.values()} == {"not run"}
    for name, kinds in zip(
        NAMES, ["FGSM PGD", "PGD", "PGD", "FGSM", "FGSM PGD transfer noise", "clean attack"], strict=True
    ):
        assert all(kind in checks[name].words for kind in kinds.split()), name


def test_names_only_what_is_missing() -> None:
    assert re.fullmatch(r"There is no row of .*FGSM\.", found("PGD against FGSM", row(PGD(0.1), 0.5)).words)
    assert found("label leaking", row(FGSM(0.1), 0.5)).words == "There is no row of clean examples."
    for name, other in (("PGD against FGSM", PGD(0.2)), ("transfer and noise", transferred(ScaledGradient(0.1)))):
        words = found(name, row(FGSM(0.1), 0.5), row(other, 0.5)).words
        assert re.fullmatch(r"There are rows of .*, but none of both with the same norm, eps and bounds\.", words)


def test_skips_rows_without_examples_or_eps() -> None:
    rubbish = clean(0.9) | {"name": "rubbish", "rubbish": {"threshold": 0.5}}
    worst = clean(0.99) | {"name": "worst case", "worst_of": ["FGSM"]}
    empty, still = row(PGD(0.25), 0.0, n=0), [row(FGSM(0.0), 0.1), row(PGD(0.0), 0.1), row(SignNoise(0.0), 0.9)]
    rows = [rubbish, worst, empty, *still, row(FGSM(0.25), 0.5)]
    assert set(outcomes(*rows, zero_gradients=(0, 0)).values()) == {"not run"}


def test_words_are_one_sentence() -> None:
    checks = [*masking_checks(healthy(), **COUNTS), *masking_checks([])]
    for check in checks:
        assert check.words.endswith(".")
        assert not re.search(r"[.!?] [A-Z]", check.words), check.words
        assert check.outcome == "not run" or re.search(r"\d+\.\d\d%|\d+ of \d+", check.words), check.words


def some(*outcomes: Any) -> list[Check]:
    names = ("more steps", "label leaking", "large eps")
    return [Check(name, outcome, "Words.") for name, outcome in zip(names, outcomes, strict=False)]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (some("passed", "passed"), "No sign of masked gradients in 2 checks."),
        (some("passed", "not run", "not run"), "No sign of masked gradients in 1 check; 2 not run."),
        (some("passed", "caution"), "No sign of masked gradients in 1 check. Caution: label leaking."),
        (some("masked", "passed", "masked"), "Masked gradients: more steps, large eps (2 of 3 checks)."),
        (
            some("masked", "caution", "not run"),
            "Masked gradients: more steps (1 of 3 checks; 1 not run). Caution: label leaking.",
        ),
        (
            some("not run", "passed"),
            "It is not known whether gradients are masked: no check of attacks has passed; 1 not run.",
        ),
        (
            some("not run", "caution"),
            "It is not known whether gradients are masked: no check of attacks has passed; 1 not run. "
            "Caution: label leaking.",
        ),
    ],
)
def test_verdict(checks: list[Check], words: str) -> None:
    assert verdict(checks) == words


# A user's own attacks


class Step(SingleStepAttack):
    """A single step that says nothing about itself."""

    def __init__(self, eps: float, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps, self.bounds = eps, bounds

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return value + self.eps * grad.sign()


class Walk(Attack):
    """Several steps, described by attributes alone."""

    def __init__(self, eps: float, steps: int, step_size: float, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps, self.steps, self.step_size, self.bounds = eps, steps, step_size, bounds

    def forward(self, model: Any, x: Tensor, y: Tensor, *, loss_fn: Any) -> Tensor:
        raise NotImplementedError


class L2Step(Step):
    """A single step that says that it is in L2."""

    def ball(self) -> Ball:
        return Ball(2, self.eps)


class L2Walk(Walk):
    """Several steps, in L2 by an attribute."""

    norm = "L2"


class Blind(Step):
    """Needs no gradient."""

    needs_grad = False


class Targeted(Step):
    """Does not use the labels."""

    uses_label = False


def test_users_attacks_are_checked_like_the_librarys() -> None:
    step, walk, blind = Step(0.1), Walk(0.1, 40, 0.01), Blind(0.1)
    name = "PGD against FGSM"
    for single in (step, FGSM(0.1)):
        assert found(name, row(single, 0.8), row(walk, 0.2)).outcome == "masked"
        assert found(name, row(single, 0.8), row(walk, 0.9)).outcome == "passed"
        assert found(name, row(single, 0.8), row(Walk(0.1, 9, 0.01), 0.2)).outcome == "not run"  # cannot cross
        assert found("transfer and noise", row(single, 0.2), row(blind, 0.4)).outcome == "masked"
        assert found("transfer and noise", row(single, 0.4), row(blind, 0.2)).outcome == "passed"
    assert found(name, row(step, 0.8), row(PGD(0.1), 0.2)).outcome == "masked"
    assert found("more steps", row(Walk(0.1, 10, 0.01), 0.6), row(walk, 0.4)).outcome == "masked"
    assert found("more steps", row(Walk(0.1, 10, 0.01), 0.6), row(walk, 0.7)).outcome == "passed"
    assert found("more steps", row(PGD(0.1, steps=10), 0.6), row(walk, 0.4)).outcome == "not run"
    assert found("large eps", row(Walk(0.5, 40, 0.05), 0.9)).outcome == "masked"
    assert found("large eps", row(Walk(0.5, 40, 0.05), 1.0)).outcome == "passed"
    assert found("growing eps", row(step, 0.4), row(Step(0.3), 0.1)).outcome == "caution"
    assert found("growing eps", row(FGSM(0.1), 0.4), row(Step(0.3), 0.1)).outcome == "not run"
    assert found("label leaking", clean(0.1), row(step, 0.02)).outcome == "caution"
    for attack in (blind, Targeted(0.1)):
        assert found("label leaking", clean(0.1), row(attack, 0.02)).outcome == "not run"


def test_another_norm_is_not_compared_with_the_max_norm() -> None:
    assert found("PGD against FGSM", row(L2Step(0.1), 0.8), row(PGD(0.1), 0.1)).outcome == "not run"
    assert found("transfer and noise", row(L2Step(0.1), 0.2), row(SignNoise(0.1), 0.9)).outcome == "not run"
    assert found("large eps", row(L2Walk(0.5, 40, 0.05), 0.1)).outcome == "not run"
    assert found("PGD against FGSM", row(L2Step(0.1), 0.8), row(L2Walk(0.1, 40, 0.01), 0.1)).outcome == "masked"
    assert found("transfer and noise", row(L2Step(0.1), 0.2), row(transferred(L2Step(0.1)), 0.9)).outcome == "masked"
    assert found("growing eps", row(L2Step(0.1), 0.4), row(L2Step(0.3), 0.1)).outcome == "caution"


# Rows from before they contained the facts


def without_facts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as an old record has them."""
    known = ("name", "attack", "error", "interval", "n")
    old = json.loads(json.dumps([{name: each[name] for name in known} for each in rows]))
    for each in old:
        if each["attack"] is not None:
            name = each["attack"]["class_path"].rpartition(".")[2]
            home = {"FGSM": "fgsm", "PGD": "pgd", "SignNoise": "noise"}.get(name)
            each["attack"]["class_path"] = (
                f"adv_lightning.attacks.{home}.{name}" if home else each["attack"]["class_path"]
            )
    return old


def test_facts_of_old_rows_are_those_of_the_attack() -> None:
    attacks = [FGSM(0.1), PGD(0.1, steps=7), SignNoise(0.1, BOX), ScaledGradient(0.1, "none"), transferred(FGSM(0.1))]
    for attack in (*attacks, MemberAttack(PGD(0.1)), Step(0.1)):
        assert (
            threat_model_of(without_facts([row(attack, 0.5)])[0])
            == threat_model_of(row(attack, 0.5))
            == attack.threat_model()
        )
    old = {"class_path": "adv_lightning.attacks.member.MemberAttack", "init_args": {"attack": FGSM(0.1).config()}}
    assert threat_model_of({"attack": old}) == MemberAttack(FGSM(0.1)).threat_model()
    assert threat_model_of({"attack": elsewhere(FGSM(0.1))}).ball is None
    assert threat_model_of({"attack": None}).uses_label is None


def test_old_rows_give_the_same_checks() -> None:
    rows = [*healthy(), row(PGD(0.25, steps=10, step_size=0.1), 0.5)]
    assert masking_checks(without_facts(rows), (0, 1000)) == masking_checks(rows, (0, 1000))


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "judged").glob("*.json")), ids=lambda path: path.stem)
def test_recorded_outcomes_stay(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [each for each in record["test"] if "rubbish" not in each]
    rows = [each for each in rows if each["n"] == min(other["n"] for other in rows)]
    recorded = {check["name"]: check["outcome"] for check in record["masking"]["checks"]}
    # The clean row of these examples and the zero gradients are not in the record.
    again = {name: outcome for name, outcome in outcomes(*rows).items() if name in NAMES[:-1]}
    assert again == {name: recorded[name] for name in again}
    assert set(again.values()) >= {"passed"}


# Real networks


class Times(nn.Module):
    """Multiplies its input."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network trained on digits, pixels in [0, 1], with its data."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x).float() / 16, torch.from_numpy(y)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), x, y


def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return (net(x).argmax(1) != y).double().mean().item()


def judged(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> list[Check]:
    attacks = [FGSM(eps / 2), FGSM(eps), PGD(eps, steps=5), PGD(eps, steps=20), PGD(0.5), SignNoise(eps)]
    rows = [clean(error(net, x, y), len(x))]
    rows += [row(attack, error(net, attack(net, x, y, loss_fn=SoftmaxLoss()), y), len(x)) for attack in attacks]
    zero = ~input_gradient(net, x, y, loss_fn=SoftmaxLoss()).grad.any(dim=1)
    return masking_checks(rows, (int(zero.sum()), len(x)))


def test_an_ordinary_net_shows_no_sign(digits: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    checks = judged(*digits, eps=0.1)
    assert verdict(checks) == "No sign of masked gradients in 7 checks; 3 not run."


def test_a_linear_net_shows_no_sign() -> None:
    # FGSM is the worst case of a linear network; five steps from a random start do not reach it.
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5000, 64, generator=generator)
    net = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.randn(2, 64, generator=generator))
        y = net(x - 0.5).argmax(1)
        net.bias = nn.Parameter(-net.weight.sum(1) / 2)
    eps, attacks = 0.03, [FGSM(0.03), PGD(0.03, 0.006, steps=5)]
    rows = [row(attack, error(net, attack(net, x, y, loss_fn=SoftmaxLoss()), y), len(x)) for attack in attacks]
    assert rows[1]["interval"][1] < rows[0]["interval"][0]
    assert found("PGD against FGSM", *rows).outcome == "not run"
    assert {check.outcome for check in judged(net, x, y, eps)} == {"passed", "not run"}  # no counts were given


def test_saturation_is_found(digits: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    net, x, y = digits
    # The predicted classes are the same, but the softmax is flat in float32.
    checks = {check.name: check for check in judged(nn.Sequential(net, Times(1000)), x, y, eps=0.1)}
    assert checks["zero gradients"].outcome == "masked"
    assert checks["large eps"].outcome == "masked"
    assert verdict(list(checks.values())).startswith("Masked gradients: ")
