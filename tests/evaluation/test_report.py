from __future__ import annotations

import hashlib
import html
import json
import re
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from adv_lightning import (
    FGSM,
    AdversarialCheckpoint,
    AdversarialModule,
    AttackSuite,
    Evaluator,
    FirstLayer,
    Fooling,
    LogitSweep,
    Report,
    RubbishTest,
)
from adv_lightning.cli import main
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation import Section
from adv_lightning.evaluation.metrics_record import write_json
from tests.conftest import ROOT
from tests.support.helpers import Batches, batches, fit, mlp, quiet_trainer


def loader() -> Batches:
    drawn = [*batches(3, seed=1), *batches(1, size=5, seed=2)]
    return Batches(*[(x.clamp(-2, 2), y) for x, y in drawn])


def record_of(folder: str | Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
    return record


def judged(suite: AttackSuite, logger: Any, **kwargs: Any) -> tuple[AdversarialModule, Trainer]:
    module = AdversarialModule(mlp(), FGSM(0.3, bounds=(-2, 2)))
    trainer = quiet_trainer(callbacks=[suite, Report()], logger=logger, **kwargs)
    trainer.test(module, loader(), verbose=False)
    return module, trainer


def test_writes_a_record_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    suite, logger = AttackSuite(), CSVLogger(tmp_path)
    judged(suite, logger=logger)
    record = record_of(logger.log_dir)
    assert [row["name"] for row in record["test"]] == ["clean", "FGSM", "PGD", "worst case"]
    assert record["test"] == json.loads(json.dumps(suite.rows))
    assert record["test"][1]["attack"]["init_args"] == {"eps": 0.3, "bounds": [-2.0, 2.0]}
    assert record["test"][1]["ball"] == {"norm": "Linf", "eps": 0.3, "bounds": [-2.0, 2.0]}
    assert record["model"]["alpha"] == 0.5
    assert record["model"]["attack"]["class_path"] == "adv_lightning.FGSM"
    assert (record["seed"], record["mode"], record["precision"]) == (7, "eval", "32-true")
    assert record["processes"] == 1
    assert record["versions"]["torch"] == version("torch")
    assert record["training"]["checkpoint"] is None
    assert list(Path(logger.log_dir).glob("*.partial")) == []


@pytest.mark.parametrize("when", ["during", "after"])
def test_records_how_long_a_checkpoint_was_trained(when: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(tmp_path)
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path)
    trainer = fit(module, batches(4), max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    if when == "after":
        trainer.save_checkpoint(path)
    trainer = quiet_trainer(callbacks=[AttackSuite(), Report(), checkpoint], enable_checkpointing=True, logger=logger)
    trainer.test(module, loader(), ckpt_path=path, verbose=False)
    record = record_of(logger.log_dir)
    del record["training"]["seed"]
    assert record["training"] == {
        "epochs": 3,
        "steps": 12,
        "seconds": None,
        "checkpoint": "last.ckpt",
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "callbacks": None,  # no command line left its configuration beside the checkpoint
    }


@pytest.mark.parametrize(("stored", "seed"), [({"adv_lightning_seed": 5}, 5), ({"adv_lightning_seed": None}, None)])
def test_records_the_seed_of_the_training(
    stored: dict[str, Any], seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded_seeds(stored, tmp_path, monkeypatch) == (seed, seed)


def test_records_the_processs_seed_without_one_in_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded_seeds({}, tmp_path, monkeypatch) == (7, 7)


def recorded_seeds(stored: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The seeds that a test in a process with seed 7 records for a checkpoint."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(folder)
    fit(module, batches(1)).save_checkpoint(folder / "a.ckpt")
    checkpoint = torch.load(folder / "a.ckpt", weights_only=True)
    checkpoint.pop("adv_lightning_seed", None)
    torch.save(checkpoint | stored, folder / "a.ckpt")
    trainer = quiet_trainer(callbacks=[AttackSuite({}), Report()], logger=logger)
    trainer.test(module, loader(), ckpt_path=folder / "a.ckpt", verbose=False)
    record = record_of(logger.log_dir)
    return record["seed"], record["training"]["seed"]


def test_writes_nothing_without_a_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = AttackSuite()
    judged(suite, logger=False)
    assert len(suite.rows) == 4
    assert list(tmp_path.rglob("*.json")) == []


def test_records_training_callbacks_and_logged_values(tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs=1", "--trainer.limit_train_batches=6"]
    noise = ["--callbacks.noise.noise=SignNoise", "--callbacks.noise.noise.eps=0.1"]
    hidden = ["--callbacks.hidden.layers=[net.maxout1]"]
    cli = main(["fit", "--config", str(ROOT / "configs" / "digits.yaml"), *root, *noise, *hidden])
    record = record_of(tmp_path / "lightning_logs" / "version_0")
    acted = record["training"]["callbacks"]
    assert acted["noise"]["init_args"]["noise"]["class_path"].endswith("SignNoise")
    assert not {"attack_suite", "pictures", "final_metrics", "report"} & acted.keys()
    name = "test/activation/net.maxout1"
    assert record["logged"][name] == pytest.approx(cli.trainer.callback_metrics[name].item())


@pytest.mark.parametrize("content", ["- a", "", "callbacks: [a, b]", "a: !!python/tuple [1]", "callbacks: {noise: 1}"])
def test_ignores_other_config_files(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    path = tmp_path / "models" / "best.ckpt"
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(tmp_path)
    fit(module, batches(1)).save_checkpoint(path, weights_only=True)
    quiet_trainer(callbacks=[AttackSuite({}), Report()], logger=logger).test(
        module, loader(), ckpt_path=path, verbose=False
    )
    record = record_of(logger.log_dir)
    assert record["training"]["callbacks"] is None


def test_without_a_suite_records_the_modules_counts(tmp_path: Path) -> None:
    module, logger = AdversarialModule(mlp(), FGSM(0.3)), CSVLogger(tmp_path)
    trainer = quiet_trainer(callbacks=[Report()], logger=logger)
    (figures,) = trainer.test(module, loader(), verbose=False)
    clean, attacked = record_of(logger.log_dir)["test"]
    assert (clean["name"], clean["attack"], clean["n"]) == ("clean", None, 29)
    assert attacked["attack"]["class_path"] == "adv_lightning.FGSM"
    assert attacked.items() >= FGSM(0.3).threat_model().to_json().items()
    assert clean["error"] == pytest.approx(figures["test/error"])
    assert attacked["error"] == pytest.approx(figures["test/adv_error"])
    assert attacked["confidence_on_mistakes"] == pytest.approx(figures["test/adv_confidence"])


def test_records_train_mode(tmp_path: Path) -> None:
    class Stubborn(nn.Dropout):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)

    logger = CSVLogger(tmp_path)
    module = AdversarialModule(nn.Sequential(mlp(), Stubborn()), FGSM(0.3))
    quiet_trainer(callbacks=[Report()], logger=logger).test(module, loader(), verbose=False)
    assert record_of(logger.log_dir)["mode"] == "train"


def test_validate_writes_its_own_files(tmp_path: Path) -> None:
    module, logger = AdversarialModule(mlp(), FGSM(0.3)), CSVLogger(tmp_path)
    trainer = quiet_trainer(callbacks=[AttackSuite(), Report()], logger=logger, limit_train_batches=1)
    trainer.fit(module, loader(), loader())
    assert list(Path(logger.log_dir).glob("metrics*.json")) == []
    trainer.validate(module, loader(), verbose=False)
    trainer.test(module, loader(), verbose=False)
    val = json.loads((Path(logger.log_dir) / "metrics_val.json").read_text(encoding="utf-8"))
    assert "test" not in val
    assert [row["name"] for row in val["val"]] == ["clean", "FGSM", "PGD", "worst case"]
    assert record_of(logger.log_dir)["test"] == val["val"]


class Page(HTMLParser):
    """What a browser would fetch and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Section]]:
    """The run directory of a test with every evaluation, on digits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    logger = TensorBoardLogger(tmp_path_factory.mktemp("report"))
    evaluators: list[Evaluator] = [
        AttackSuite(masking=True, max_samples=50),
        RubbishTest(100, ["gaussian", "uniform", "attacked"]),
        Fooling(20),
        LogitSweep(),
        FirstLayer(),
    ]
    trainer = quiet_trainer(callbacks=[*evaluators, Report(html=True)], logger=logger)
    trainer.test(AdversarialModule(net, FGSM(0.1)), datamodule=DigitsDataModule(), verbose=False)
    return Path(logger.log_dir), [evaluator.section for evaluator in evaluators if evaluator.section]


def test_page_works_offline(report: tuple[Path, list[Section]]) -> None:
    text = (report[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.sources) == sum(len(section.pictures) for section in report[1])
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert "http" not in text


def test_page_has_every_table_picture_and_verdict(report: tuple[Path, list[Section]]) -> None:
    text = (report[0] / "report.html").read_text(encoding="utf-8")
    shown = re.sub(r"\s+", " ", html.unescape(text))
    for section in report[1]:
        assert section.title in shown
        for table in section.tables:
            assert all(cell in shown for row in table.rows for cell in row), table.title
        assert all(picture.caption in shown for picture in section.pictures)
        assert section.verdict is None or section.verdict in shown
    assert any(section.verdict for section in report[1])


def test_page_begins_with_the_main_figures(report: tuple[Path, list[Section]]) -> None:
    """Clean and worst-case error, n and the attacks come first; what only checks need has a table of its own."""
    suite = report[1][0]
    rows = {row["name"]: row for row in suite.rows}
    clean, worst = rows["clean"], rows["worst case"]
    expected = (
        f"Clean error {100 * clean['error']:.2f} % (n={clean['n']}). "
        f"Worst case {100 * worst['error']:.2f} % (n={worst['n']}) under FGSM(eps="
    )
    assert suite.headline is not None
    assert suite.headline.startswith(expected)
    text = (report[0] / "report.html").read_text(encoding="utf-8")
    places = [
        text.index(html.escape(part)) for part in (suite.headline[:60], suite.verdict or "", suite.tables[0].title)
    ]
    assert places == sorted(places)
    main, added = suite.tables[0], suite.tables[1]
    assert [row[0].split("(")[0] for row in main.rows] == ["clean", "FGSM", "PGD", "worst case"]
    assert len(main.rows) + len(added.rows) == len(suite.rows)
    assert "checks for masked gradients" in added.title


def test_every_picture_is_a_file_and_in_tensorboard(report: tuple[Path, list[Section]]) -> None:
    names = {picture.name for section in report[1] for picture in section.pictures}
    files = {path.stem.partition("_")[2] for path in (report[0] / "pictures").iterdir()}
    assert {"error_against_eps", "weights_and_sign", "logits_against_eps", "fooling_images"} < files
    assert files == {name.replace(" ", "_") for name in names}
    events = EventAccumulator(str(report[0]), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {f"report/{name}" for name in names}


def test_record_has_every_evaluations_results(report: tuple[Path, list[Section]]) -> None:
    record = record_of(report[0])
    assert {"masking", "fooling", "logit_sweep", "first_layer"} <= record.keys()
    assert record["masking"]["verdict"] == report[1][0].verdict
    names = [row["name"] for row in record["test"]]
    assert names[0] == "clean"
    assert names[-3:] == ["rubbish", "rubbish, uniform", "rubbish, attacked"]
    assert all(row["interval"][0] <= row["error"] <= row["interval"][1] and row["n"] for row in record["test"])


def test_names_are_escaped(tmp_path: Path) -> None:
    module, logger = AdversarialModule(mlp(), FGSM(0.3)), CSVLogger(tmp_path)
    suite = AttackSuite({"</table><script>alert(1)</script>" + "x" * 300: FGSM(0.1)})
    quiet_trainer(callbacks=[suite, Report(html=True)], logger=logger).test(module, loader(), verbose=False)
    text = (Path(logger.log_dir) / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert" in text


def test_pictures_with_similar_names_have_different_files(tmp_path: Path) -> None:
    module, logger = AdversarialModule(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), FGSM(0.3)), CSVLogger(tmp_path)
    suite = AttackSuite({"a b": FGSM(0.1), "a_b.": FGSM(0.2), "y" * 300: FGSM(0.4)})
    data = Batches((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])))
    quiet_trainer(callbacks=[suite, Report(html=True)], logger=logger).test(module, data, verbose=False)
    assert suite.section is not None
    assert len(list((Path(logger.log_dir) / "pictures").iterdir())) == len(suite.section.pictures) == 7


def test_nan_becomes_null(tmp_path: Path) -> None:
    write_json({"a": [float("nan"), {"b": float("inf")}], "c": 1.5}, tmp_path, "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, {"b": None}], "c": 1.5}


def test_removes_the_pictures_of_an_earlier_test(tmp_path: Path) -> None:
    net, logger = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), CSVLogger(tmp_path)
    data = Batches((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])))
    for attack in (FGSM(0.3), None):
        suite = AttackSuite()
        trainer = quiet_trainer(callbacks=[suite, Report(html=True)], logger=logger)
        trainer.test(AdversarialModule(net, attack), data, verbose=False)
        assert suite.section is not None
        assert len(list((Path(logger.log_dir) / "pictures").iterdir())) == len(suite.section.pictures)
