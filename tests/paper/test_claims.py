"""Every number of the paper is a claim, which has a figure or says why it is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adv_lightning.paper.claims import Claim, Paper, Quantity, Selector, load
from adv_lightning.paper.results import Results
from tests.conftest import ROOT

# The paper's figures by claim, in percent; the closed form is a difference of 0.
PUBLISHED: dict[str, list[float]] = {
    "softmax.fgsm": [99.9, 79.3],
    "softmax.rubbish": [59.8, 70.8],
    "maxout.clean": [0.94],
    "maxout.fgsm": [89.4, 97.6],
    "maxout.rubbish": [98.35, 92.8, 45.3, 0],
    "maxout.rubbish.sigmoid": [68, 87.9],
    "maxout.adv.clean": [0.84],
    "maxout1600.clean": [1.14],
    "maxout1600.adv": [0.782],
    "maxout.adv.fgsm": [17.9, 81.4],
    "transfer.orig_to_adv": [19.6],
    "transfer.adv_to_orig": [40.9],
    "noise.sign": [86.2, 97.3],
    "noise.uniform": [90.4, 97.8],
    "logistic.clean": [1.6],
    "logistic.fgsm": [99],
    "logistic.closed": [0],
    "l1": [5],
    "rbf.fgsm": [55.4, 1.2, 60.6],
    "rbf.rubbish": [0],
    "agree.softmax": [54.6, 84.6],
    "agree.rbf": [16.0, 54.3],
    "agree.rbf_softmax": [53.6],
    "ensemble": [91.1, 87.9],
    "mpdbm": [0.88, 97.5],
    "cifar.fgsm": [87.15, 96.6],
    "cifar.rubbish": [93.4, 84.4, 49.7, 0],
    "fooling": [100, 24.7, 75.3],
    "rubbish.trained": [0],
    "imagenet": [],
    "lbfgs": [],
    "hidden": [],
    "differentiable": [],
    "quadratic": [],
    "fig2": [],
    "fig3": [],
    "fig4": [],
    "fig5": [],
}
BEYOND = {"pgd", "autoattack", "readings", "alpha", "eps"}
ROWS = [(claim, quantity) for claim in load().claims.values() for quantity in claim.quantities]


def test_all_numbers_of_the_paper() -> None:
    found = {c.id: [*dict.fromkeys(q.published for q in c.quantities if q.published is not None)] for c in CLAIMS}
    assert {name: numbers for name, numbers in found.items() if name not in BEYOND} == PUBLISHED
    assert set(found) - set(PUBLISHED) == BEYOND


CLAIMS: list[Claim] = list(load().claims.values())


@pytest.mark.parametrize(("claim", "quantity"), ROWS, ids=lambda x: getattr(x, "id", None) or getattr(x, "name", None))
def test_a_figure_is_found_or_missing(claim: Claim, quantity: Quantity) -> None:
    results = Results(ROOT / "results")
    other = None if quantity.direction is None else quantity.direction.of
    for selector in filter(None, (quantity.measured, other if isinstance(other, Selector) else None)):
        assert results.find(selector) or quantity.missing, f"{selector} finds nothing"
    if quantity.missing is not None:
        assert quantity.missing.why
        # What was not run can be run; what is not built cannot.
        assert bool(quantity.measured) == (quantity.missing.kind == "not run")
    assert not quantity.measured or claim.runs


def test_tolerances_follow_the_rule() -> None:
    for _, quantity in ROWS:
        if quantity.published is not None and quantity.unit == "%":
            rule = 2 if quantity.published >= 10 else 0.2
            assert quantity.tolerance is None or quantity.tolerance < rule
            assert quantity.allowed == quantity.tolerance or quantity.allowed == rule


def test_runs_have_configs_and_places() -> None:
    paper = load()
    places = [run.place for run in paper.runs.values()]
    assert len(set(places)) == len(places)
    for run in paper.runs.values():
        for word in run.arguments:
            if word.startswith("--config="):
                assert Path(ROOT, word.removeprefix("--config=")).is_file()
    for claim, quantity in ROWS:
        made = {paper.runs[name].place for name in claim.runs}
        assert quantity.measured is None or made & {*quantity.measured.places}, claim.id


def claim(**quantity: Any) -> dict[str, Any]:
    return {"claims": [{"id": "a", "section": "1", "says": "b", "quantities": [{"name": "c", **quantity}]}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (claim(), "measured, missing or picture"),
        (claim(measured={"places": ["x"]}, colour="red"), r"a, c: unknown keys \['colour'\]"),
        (claim(missing={"kind": "lost", "why": "x"}), "missing='lost'.*not run, not built"),
        (claim(measured={"places": ["x"]}, direction={"is": "near", "of": 1, "words": "x"}), "is='near'"),
        (
            claim(measured={"places": ["x"]}, direction={"is": "below", "of": 1, "words": "on 50", "000": None}),
            r"unknown keys \['000'\]",
        ),
        ({"claims": claim(picture="x")["claims"] * 2}, "twice.*a"),
        ({"claims": [claim(picture="x")["claims"][0] | {"runs": ["softmin"]}]}, "a: .*softmin"),
        (
            {"runs": {"r": {"do": "guess", "place": "x", "seeds": [0], "cost": ""}}, **claim(picture="x")},
            "do='guess'",
        ),
    ],
)
def test_refuses_unclear_claims(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Paper.of(content)


def test_names_the_nearest_claim() -> None:
    with pytest.raises(ValueError, match=r"softmax\.fgms.*softmax\.fgsm"):
        load().claim("softmax.fgms")
    with pytest.raises(ValueError, match=r"transfer\.orig_to_adv, transfer\.adv_to_orig|transfer\.adv_to_orig"):
        load().claim("transfer")
