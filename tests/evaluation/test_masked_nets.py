"""The checks on networks with masked gradients and without: one of each kind, and the tracked count of all."""

from __future__ import annotations

import json

import pytest

from benchmarks.masked_nets import HONEST, MASKED
from benchmarks.masking import BEGIN, END, images, is_flagged, judge, table
from tests.conftest import ROOT

RECORD = ROOT / "results" / "checks" / "masking.json"
PAGE = ROOT / "docs" / "judging.md"
QUICK = ["detached pixels", "flipped surrogate gradient", "linear, two classes"]
ignored = pytest.mark.filterwarnings("ignore:.*gradient is zero:UserWarning", "ignore:.*many workers:UserWarning")


@ignored
@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in MASKED])
def test_masked_gradients_are_flagged(kind: str) -> None:
    net = judge(MASKED[kind](*images("train"), 200))
    assert is_flagged(net), net


@ignored
@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in HONEST])
def test_honest_networks_are_not(kind: str) -> None:
    net = judge(HONEST[kind](*images("train"), 201))
    assert not is_flagged(net), net


def test_the_tracked_count() -> None:
    """At least 95 of 100 networks with masked gradients of ten kinds, at most 1 of 100 without."""
    nets = json.loads(RECORD.read_text(encoding="utf-8"))["nets"]
    for kinds, group, least, most in ((MASKED, "masked", 95, 100), (HONEST, "honest", 0, 1)):
        of_group = [net for net in nets if net["group"] == group]
        assert {net["kind"] for net in of_group} == {*kinds}
        assert len(kinds) == 10
        assert len(of_group) == 100
        assert least <= sum(map(is_flagged, of_group)) <= most


def test_page_is_up_to_date() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    said = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()
    assert said == table(record), "stale: run python -m benchmarks.masking --write docs/judging.md"
