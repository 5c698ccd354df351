"""README's table of results is generated and up to date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from adv_lightning import PGD, AdversarialModule, AttackSuite, Report
from adv_lightning.paper.judging_table import written
from adv_lightning.paper.table import replace_table, table
from tests.conftest import ROOT
from tests.support.helpers import batches, mlp, quiet_trainer

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@pytest.mark.parametrize(("file", "results"), [("README.md", "results"), ("docs/controls.md", "results/controls")])
def test_pages_are_up_to_date(file: str, results: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert replace_table(text, table(ROOT / results)) == text, (
        f"stale: run python -m adv_lightning.paper.table --results {results} --write {file}"
    )


def test_judging_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "judging.md").read_text(encoding="utf-8")
    assert written(page, ROOT / "results") == page, (
        "stale: run python -m adv_lightning.paper.judging_table --write docs/judging.md"
    )


def described(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"adv_lightning.{name}", "init_args": arguments}


def judged(attack: dict[str, Any] | None, error: float, confidence: float | None = None) -> dict[str, Any]:
    return {"name": "any", "attack": attack, "error": error, "confidence_on_mistakes": confidence, "n": 10000}


CLEAN = judged(None, 0.0123)
MAXOUT = described("models.MaxoutMLP", units=240, pieces=5, layers=2, dropout=0.5)
PUBLISHED_NET = {"backbone": MAXOUT, "attack": described("FGSM", eps=0.25, bounds=None), "alpha": 0.5}


def cells(
    folder: Path,
    model: dict[str, Any],
    *rows: dict[str, Any],
    seconds: float | None = 3540.0,
    callbacks: dict[str, Any] | None = None,
    **further: Any,
) -> dict[str, str]:
    """The one row of the table of a record, by the head of its columns."""
    training = {"epochs": 117, "steps": 58500, "seconds": seconds, "seed": 3, "checkpoint": "best.ckpt"}
    training["callbacks"] = callbacks if callbacks is not None else {}
    training |= further.pop("training", {})
    record = {"test": [CLEAN, *rows], "training": training, "seed": 3, "model": model} | further
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(folder).splitlines()]
    assert len(lines) == 3
    return dict(zip(lines[0], lines[2], strict=True))


def test_a_row_for_each_run(tmp_path: Path) -> None:
    cells(tmp_path, PUBLISHED_NET)
    (tmp_path / "again.json").write_text((tmp_path / "run.json").read_text(encoding="utf-8"), encoding="utf-8")
    rows = table(tmp_path).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["`again`", "`run`"]
    assert all("1.23%" in row for row in rows)


def test_cells(tmp_path: Path) -> None:
    fgsm = judged(described("FGSM", eps=0.25), 0.1791, 0.814)
    pgd = judged(described("PGD", eps=0.125, steps=40), 0.9, 0.95)
    assert cells(tmp_path, PUBLISHED_NET, fgsm, pgd) == {
        "run": "`run`",
        "net": "MaxoutMLP 240 x 5, 2 layers",
        "trained on": "alpha 0.5, FGSM eps 0.25",
        "seed": "3",
        "epochs": "117",
        "time": "59 min",
        "n": "10000",
        "clean": "1.23%",
        "FGSM (conf.)": "17.91% (81.4%), eps 0.25",
        "PGD-40 (conf.)": "90.00% (95.0%), eps 0.125",
        "paper": "",
    }


def test_plain_softmax_regression(tmp_path: Path) -> None:
    model = {"backbone": {"class_path": "adv_lightning.models.SoftmaxRegression"}, "attack": None, "alpha": 0.5}
    row = cells(tmp_path, model, judged(described("FGSM", eps=0.1), 0.5), seconds=None)
    assert (row["net"], row["trained on"], row["time"]) == ("SoftmaxRegression", "clean only", "-")
    assert (row["FGSM (conf.)"], row["PGD-40 (conf.)"]) == ("50.00%, eps 0.1", "-")


def test_only_pgd_of_40_steps(tmp_path: Path) -> None:
    weak = judged(described("PGD", eps=0.25, steps=3), 0.3)
    row = cells(tmp_path, PUBLISHED_NET | {"alpha": 1}, weak)
    assert (row["trained on"], row["FGSM (conf.)"], row["PGD-40 (conf.)"]) == ("clean only", "-", "-")
    assert cells(tmp_path, PUBLISHED_NET, weak, judged(described("PGD", eps=0.25, steps=40), 0.7))[
        "PGD-40 (conf.)"
    ] == ("70.00%, eps 0.25")


def test_net_built_in_python_and_own_attack(tmp_path: Path) -> None:
    model = {"attack": {"class_path": "mine.Blur", "init_args": {"radius": 2}}, "alpha": 0}
    row = cells(tmp_path, model)
    assert (row["net"], row["trained on"]) == ("-", "alpha 0, Blur")


def test_reads_a_written_record(tmp_path: Path) -> None:
    suite, logger = AttackSuite(), CSVLogger(tmp_path)
    module = AdversarialModule(mlp(), PGD(0.3, steps=2))
    quiet_trainer(callbacks=[suite, Report()], logger=logger).test(module, batches(1), verbose=False)
    record = (Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8")
    (tmp_path / "run.json").write_text(record, encoding="utf-8")
    row = table(tmp_path).splitlines()[2]
    for name in ("clean", "FGSM", "PGD-40"):
        error = next(row["error"] for row in suite.rows if row["name"] == name)
        assert f" {error:.2%}" in row
    assert "alpha 0.5, PGD eps 0.3" in row


def test_needs_markers() -> None:
    assert replace_table(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="markers"):
        replace_table("no markers", "new")


def test_refit_without_validation(tmp_path: Path) -> None:
    for name in ("maxout_adv_wide", "maxout_adv_wide_refit"):
        shutil.copy(ROOT / "results" / "paper" / f"{name}.json", tmp_path)
    rows = table(tmp_path).splitlines()
    assert ["no image kept" in row for row in rows[2:]] == [False, True]


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    return described(f"callbacks.{name}", **arguments)


FGSM_HIDDEN = described("FGSM", eps=0.3)


@pytest.mark.parametrize(
    ("model", "callbacks", "said"),
    [
        ({"alpha": 0}, {"noise": callback("InputNoise", noise=described("SignNoise", eps=0.25))}, "SignNoise eps 0.25"),
        (
            {"alpha": 0.5},
            {"hidden": callback("HiddenPerturbation", layers=["a.b"], rule=FGSM_HIDDEN, perturb_input=True)},
            "FGSM eps 0.25, FGSM eps 0.3 on a.b",
        ),
        (
            {"alpha": 0.5},
            {"hidden": callback("HiddenPerturbation", layers=["a", "b"], rule=FGSM_HIDDEN, perturb_input=False)},
            "FGSM eps 0.3 on a, b",
        ),
    ],
)
def test_names_perturbing_callbacks(
    model: dict[str, Any], callbacks: dict[str, Any], said: str, tmp_path: Path
) -> None:
    row = cells(tmp_path, PUBLISHED_NET | model, callbacks=callbacks)
    assert row["trained on"] == f"alpha {model['alpha']:g}, {said}"


def test_names_terms_of_the_loss(tmp_path: Path) -> None:
    model = PUBLISHED_NET | {"alpha": 1, "loss_fn": {"class_path": "adv_lightning.losses.SigmoidLoss"}}
    callbacks = {
        "l1": callback("L1Penalty", coefficient=0.0025, layers=["a"]),
        "rubbish": callback("RubbishTraining", weight=1),
        "hidden": callback("HiddenPerturbation", layers=["a"], rule=None, perturb_input=False),
    }
    row = cells(tmp_path, model, callbacks=callbacks)
    assert row["trained on"] == "clean only, L1 0.0025 on a, rubbish, SigmoidLoss"


def test_rare_columns(tmp_path: Path) -> None:
    rubbish = judged(None, 0.25, 0.75) | {"rubbish": {"distribution": "N(0, I)"}}
    logged = {"test/activation/net.a": 1.23456, "test/error": 0.1}
    row = cells(tmp_path, PUBLISHED_NET, rubbish, data={"test_part": "train"}, logged=logged)
    assert row["clean"] == "1.23%"
    assert row["rubbish (conf.)"] == "25.00% (75.0%)"
    assert row["mean activation"] == "net.a 1.235"
    assert row["judged on"] == "training images"


def test_mean_over_seeds(tmp_path: Path) -> None:
    one, together = tmp_path / "one", tmp_path / "together"
    one.mkdir()
    together.mkdir()
    for name, seed, error in (("net", 0, 0.2), ("net_seed1", 1, 0.3), ("other", 0, 0.5)):
        fgsm = judged(described("FGSM", eps=0.25), error, 0.8)
        cells(one, PUBLISHED_NET, fgsm, seed=seed, logged={"test/activation/a": error})
        (one / "run.json").rename(together / f"{name}.json")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(together).splitlines()]
    row = dict(zip(lines[0], lines[-1], strict=True))
    assert len(lines) == 2 + 3 + 1
    assert (row["run"], row["seed"]) == ("`net`, 2 seeds", "0, 1")
    assert row["FGSM (conf.)"] == "25.00% +- 7.07%"
    assert row["clean"] == "1.23% +- 0.00%"
    assert row["PGD-40 (conf.)"] == "-"
    assert row["mean activation"] == "0.250 +- 0.071"


def test_unknown_callbacks(tmp_path: Path) -> None:
    row = cells(tmp_path, PUBLISHED_NET, training={"callbacks": None})
    assert row["trained on"] == "alpha 0.5, FGSM eps 0.25, callbacks unknown"
