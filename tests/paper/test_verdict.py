"""Verdicts follow from the numbers."""

from __future__ import annotations

import pytest

from adv_lightning.paper.claims import Direction, Missing, Quantity
from adv_lightning.paper.verdict import MEANING, Verdict, judge

BELOW = Direction("below", 50.0, "that of plain training")


def quantity(**given: object) -> Quantity:
    return Quantity("error", **{"published": 40.0, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "verdict", "why"),
    [
        ([42.0], Verdict.REPRODUCED, "within 2 points, one seed"),
        ([38.0], Verdict.REPRODUCED, "within 2 points, one seed"),
        ([42.01], Verdict.DIFFERS, "2.01 points above the paper"),
        ([37.9], Verdict.DIFFERS, "2.10 points below the paper"),
        ([41.0, 42.0], Verdict.REPRODUCED, "within 2 points"),
        # Mean 43, deviation 3, so two standard errors of four seeds are 3.46 and of nine 2.25.
        ([40.0, 40.0, 46.0, 46.0], Verdict.REPRODUCED, "within 2 standard errors of 4 seeds, 3.46 points"),
        ([43.0, 43.1, 42.9], Verdict.DIFFERS, "3.00 points above the paper"),
    ],
)
def test_against_a_number(values: list[float], verdict: Verdict, why: str) -> None:
    assert judge(quantity(), values) == (verdict, why)


def test_limit_of_two_standard_errors() -> None:
    # Deviation 2, two standard errors of four seeds: 2.
    values = [42 - 3**0.5, 42 - 3**0.5, 42 + 3**0.5, 42 + 3**0.5]
    assert judge(quantity(published=40.01, tolerance=1.5), values).verdict is Verdict.REPRODUCED
    assert judge(quantity(published=39.99, tolerance=1.5), values).verdict is Verdict.DIFFERS


def test_two_seeds_have_no_spread() -> None:
    assert judge(quantity(published=40.0), [41.0, 45.0]).verdict is Verdict.DIFFERS
    assert judge(quantity(published=40.0), [40.0, 43.0, 46.0]).verdict is Verdict.REPRODUCED


def test_spread_at_most_doubles_the_tolerance() -> None:
    assert judge(quantity(published=40.0), [34.0, 44.0, 54.0]).verdict is Verdict.REPRODUCED
    assert judge(quantity(published=39.9), [34.0, 44.0, 54.0]).verdict is Verdict.DIFFERS


def test_tolerance() -> None:
    assert judge(quantity(published=9.9), [10.1]).verdict is Verdict.REPRODUCED
    assert judge(quantity(published=9.9), [10.11]).verdict is Verdict.DIFFERS
    assert judge(quantity(published=0.0, unit="number", tolerance=1e-12), [1e-13]).verdict is Verdict.REPRODUCED
    assert judge(quantity(published=0.0, unit="number", tolerance=1e-12), [1e-11]).verdict is Verdict.DIFFERS


@pytest.mark.parametrize(("better", "value"), [("lower", 30.0), ("higher", 50.0)])
def test_better(better: str, value: float) -> None:
    assert judge(quantity(better=better), [value]) == (
        Verdict.BETTER,
        f"10.00 points {'below' if value < 40 else 'above'} the paper",
    )
    assert judge(quantity(better=better), [80.0 - value]).verdict is Verdict.DIFFERS
    assert judge(quantity(better=better), [40.5]).verdict is Verdict.REPRODUCED


@pytest.mark.parametrize(
    ("relation", "other", "holds"),
    [
        ("below", 46.0, True),
        ("below", 45.0, False),
        ("above", 44.0, True),
        ("above", 45.0, False),
        ("not above", 45.0, True),
        ("not above", 44.0, False),
    ],
)
def test_comparison(relation: str, other: float, holds: bool) -> None:
    direction = Direction(relation, 0.0, "the other")  # type: ignore[arg-type]
    for published in (40.0, None):
        found = judge(quantity(published=published, direction=direction), [44.0, 46.0], other)
        assert found.verdict is (Verdict.SAME_DIRECTION if holds else Verdict.DIFFERS)
        assert "the other" in found.why
    agreeing = judge(quantity(published=45.0, direction=direction), [44.0, 46.0], other)
    assert agreeing.verdict is (Verdict.REPRODUCED if holds else Verdict.DIFFERS)


def test_not_above_with_tolerance() -> None:
    direction = Direction("not above", 0.0, "the other")
    for value, verdict in ((2.2, Verdict.SAME_DIRECTION), (2.21, Verdict.DIFFERS)):
        assert judge(quantity(published=None, tolerance=0.2, direction=direction), [value], 2.0).verdict is verdict


def test_says_how_far() -> None:
    assert judge(quantity(direction=BELOW), [44.0], 50.0).why == (
        "4.00 points above the paper; 6.00 points below that of plain training"
    )
    length = judge(quantity(published=None, unit="px", direction=BELOW), [7.5], 9.25)
    assert length == (Verdict.SAME_DIRECTION, "1.75 px below that of plain training")


def test_comparison_with_nothing() -> None:
    assert judge(quantity(direction=BELOW), [44.0], None).verdict is Verdict.DIFFERS
    assert judge(quantity(published=None, direction=BELOW), [44.0], None).verdict is Verdict.MEASURED


def test_bound() -> None:
    assert judge(quantity(published=5.0, bound="above"), [8.0]).verdict is Verdict.REPRODUCED
    assert judge(quantity(published=5.0, bound="above"), [4.9]).verdict is Verdict.DIFFERS


def test_without_a_figure() -> None:
    assert judge(quantity(), []).verdict is Verdict.NOT_RUN
    assert judge(quantity(missing=Missing("not run", "too slow")), []) == (Verdict.NOT_RUN, "too slow")
    assert judge(quantity(missing=Missing("not built", "no net")), []) == (Verdict.NOT_BUILT, "no net")
    assert judge(quantity(published=None, picture="a.png"), []) == (Verdict.PICTURE, "drawn as a.png")
    assert judge(quantity(published=None), [1.0]).verdict is Verdict.MEASURED
    # A figure that is there wins over the reason why it was not.
    assert judge(quantity(missing=Missing("not run", "too slow")), [40.0]).verdict is Verdict.REPRODUCED


def test_every_verdict_has_a_meaning() -> None:
    assert set(MEANING) == set(Verdict)
