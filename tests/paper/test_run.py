"""`run` on small data: what is made, where, and when it is not made again."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from adv_lightning.cli import AdversarialCLI
from adv_lightning.cli import main as library
from adv_lightning.paper import run as module
from adv_lightning.paper.__main__ import _parser, main
from adv_lightning.paper.claims import Run, load
from adv_lightning.paper.report import Row, rows
from adv_lightning.paper.results import Results
from adv_lightning.paper.run import Runner, _without_paths, checkpoint_of, place
from tests.conftest import ROOT
from tests.support.small_data import write_idx

pytestmark = pytest.mark.filterwarnings("ignore:The .* does not have many workers")

SMALL = [
    "--data.val_size=4",
    "--data.batch_size=4",
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--callbacks.pictures=null",
    "--callbacks.rubbish_test.samples=20",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small data, from which the project's configurations are found."""
    write_idx(tmp_path / "data" / "MNIST" / "raw")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*ids: str, data: str = "data") -> list[str]:
    return ["run", *ids, "--seed", "1", "--data.root", data, *SMALL]


def never(args: Any) -> None:
    raise AssertionError(f"was run again: {args}")


def test_runs_a_claim_once(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("softmax.fgsm", data=str(folder / "data"))) == 0
    printed = capsys.readouterr().out
    assert "softmax, seed 1: fit" in printed
    assert printed.count("softmax.rubbish") == 2
    assert not (folder / "results").exists()  # further arguments of fit: these are not the claim's results
    path = folder / "paper_runs" / "results" / "controls" / "mnist_softmax_seed1.json"
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    assert str(folder) not in text
    assert (record["seed"], record["data"]["root"], record["training"]["epochs"]) == (1, "data", 1)
    figures = {row["name"]: row["error"] for row in record["test"]}
    assert figures.keys() >= {"clean", "FGSM", "FGSM clipped", "PGD", "rubbish"}
    assert f"{100 * figures['FGSM']:.2f} %" in printed

    monkeypatch.setattr(module, "main", never)
    path.unlink()
    assert main(words("softmax.fgsm", data=str(folder / "data"))) == 0
    assert "softmax, seed 1: done before" in capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == text

    assert main([*words("softmax.fgsm"), "--trainer.max_epochs=2"]) == 2
    assert "other arguments" in capsys.readouterr().err


def test_continues_an_interrupted_run(folder: Path) -> None:
    runner = Runner(load(), Path("data"), Path("paper_runs"), Path("out"), [*SMALL, "--trainer.max_epochs=3"])
    run = load().runs["softmax"]
    made = runner.folder(run, 0)
    start = ["--data.root=data", f"--trainer.default_root_dir={made}", "--test_after_fit=false", *SMALL]
    library(["fit", *run.arguments, *start])  # one of three epochs
    assert module._finished(made) is None
    runner.make(run, 0)
    assert [path.name for path in (made / "lightning_logs").iterdir()] == ["version_0"]
    record = json.loads((folder / "out" / "controls" / "mnist_softmax.json").read_text(encoding="utf-8"))
    newest = record["training"]["checkpoint"]
    assert newest in ("best.ckpt", "last.ckpt")
    config = (made / "lightning_logs" / "version_0" / "config.yaml").read_text(encoding="utf-8")
    assert "max_epochs: 3" in config
    assert list((made / "lightning_logs" / "version_0").glob("config_until_step_*.yaml"))


def test_an_unfinished_run_is_no_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "main", lambda args: None)
    with pytest.raises(ValueError, match="softmax, seed 0"):
        Runner(load(), Path("data"), Path("paper_runs"), Path("out")).make(load().runs["softmax"], 0)
    assert not (folder / "out").exists()


def test_makes_needed_runs_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "mine"
    assert main([*words("logistic.closed"), "--out", str(out)]) == 0
    assert "logistic, seed 1: fit" in capsys.readouterr().out
    closed = json.loads((out / "paper" / "closed_form_seed1.json").read_text(encoding="utf-8"))["closed_form"]
    assert closed["n"] == 4
    assert 0 <= closed["loss_difference"] < 1e-13
    assert 0 <= closed["gradient_difference"] < 1e-13
    assert (out / "controls" / "mnist_logistic_seed1.json").is_file()


def test_compares_networks(folder: Path) -> None:
    runner = Runner(load(), Path("data"), Path("paper_runs"), Path("out"), SMALL)
    runner.make(load().runs["compared_shallow"], 0)
    record = json.loads((folder / "out" / "paper" / "compared_shallow.json").read_text(encoding="utf-8"))
    assert [network["name"] for network in record["networks"]] == ["softmax", "rbf"]
    assert record["networks"][0]["checkpoint"].startswith("paper_runs/softmax/seed0/lightning_logs/version_0/")
    clean = json.loads((folder / "out" / "controls" / "mnist_rbf.json").read_text(encoding="utf-8"))["clean_confidence"]
    assert clean["n"] == 20
    assert 0 < clean["mean"] <= 1


def test_commands_of_the_other_protocols(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is not run here: these commands are those of the command line, whose tests are elsewhere."""
    called: list[list[str]] = []

    def pretend(args: list[str]) -> None:
        called.append(args)
        root = next(word.partition("=")[2] for word in args if word.startswith("--trainer.default_root_dir="))
        checkpoints = Path(root, "lightning_logs", "version_0", "checkpoints")
        checkpoints.mkdir(parents=True)
        for name in ("best", "last"):
            (checkpoints / f"{name}.ckpt").touch()
        (checkpoints.parent / "metrics.json").write_text('{"seed": 0}', encoding="utf-8")

    monkeypatch.setattr(module, "main", pretend)
    runner = Runner(load(), Path("data"), Path("paper_runs"), Path("out"), ["--trainer.max_epochs=1"])
    runner.make(load().runs["maxout_adv_refit"], 0)
    assert [args[0] for args in called] == ["fit", "refit"]
    assert "--run=paper_runs/maxout_adv/seed0/lightning_logs/version_0" in called[1]
    assert called[1][-1] == "--ckpt_path=last"
    assert ["--trainer.max_epochs=1" in args for args in called] == [True, False]
    called.clear()
    runner.make(load().runs["maxout_adv_continued_evaluated"], 0)
    assert [args[0] for args in called] == ["fit", "test"]
    assert called[0][-1] == "--ckpt_path=paper_runs/maxout_adv/seed0/lightning_logs/version_0/checkpoints/last.ckpt"
    judged = "--ckpt_path=paper_runs/maxout_adv_continued/seed0/lightning_logs/version_0/checkpoints/best.ckpt"
    assert judged in called[1]
    called.clear()
    runner.make(load().runs["ensemble"], 0)
    assert [args[0] for args in called] == ["fit"] * 12 + ["test"]
    assert [args[-4] for args in called[:12]] == [f"--seed_everything={seed}" for seed in range(100, 112)]
    (listed,) = (word for word in called[-1] if word.startswith("--model.backbone.checkpoints="))
    assert listed.count("best.ckpt") == 12


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in load().runs.values() if run.do == "fit"], ids=lambda run: run.name)
def test_every_training_takes_a_step(run: Run, folder: Path) -> None:
    small = ["--data.root=data", "--trainer.fast_dev_run=true", *SMALL[:2], "--callbacks.pictures=null"]
    small += ["--model.backbone.units=4"] if any("maxout" in argument for argument in run.arguments) else []
    cli = library(["fit", *run.arguments, *small, "--test_after_fit=false"])
    assert isinstance(cli, AdversarialCLI)
    assert cli.trainer.global_step == 1


def test_refit_trains_on_all_images(folder: Path) -> None:
    at_once = ["--callbacks.early_stopping.start_epoch=0", "--callbacks.checkpoint.start_epoch=0"]
    further = [*SMALL[:-1], "--model.backbone.units=4", "--trainer.max_epochs=2", *at_once]
    runner = Runner(load(), Path("data"), Path("paper_runs"), Path("out"), further)
    runner.make(load().runs["maxout_adv_refit"], 1)
    first, again = (
        json.loads((folder / "out" / f"{name}_seed1.json").read_text(encoding="utf-8"))
        for name in ("mnist_maxout_adv", "mnist_maxout_adv_refit")
    )
    assert (first["data"]["val_size"], again["data"]["val_size"]) == (4, 0)
    assert (first["seed"], again["seed"]) == (1, 1)
    assert again["training"]["epochs"] == first["training"]["epochs"]
    assert again["training"]["steps"] == 15 * again["training"]["epochs"]  # 60 images in batches of 4


def test_ensemble(folder: Path) -> None:
    run = load().runs["ensemble"]
    small = ["--model.backbone.units=3", *SMALL[:-1]]
    for seed in (0, 1):
        start = [f"--seed_everything={seed}", "--data.root=data", f"--trainer.default_root_dir=m{seed}"]
        library(["fit", *load().runs["member"].arguments, *start, *small])
    members = ",".join(str(checkpoint_of(Path(f"m{seed}"))) for seed in (0, 1))
    command = ["test", "--data=MNISTDataModule", "--model.backbone=CheckpointEnsemble", "--model.attack=null"]
    command += [f"--model.backbone.checkpoints=[{members}]", *run.arguments, "--data.root=data"]
    library([*command, "--trainer.default_root_dir=whole"])
    record = module._finished(folder / "whole")
    assert record is not None
    (folder / "results" / "paper").mkdir(parents=True)
    (folder / "results" / "paper" / "ensemble.json").write_text(json.dumps(record), encoding="utf-8")
    made = [row for row in rows(load(), Results(folder / "results")) if row.claim.id == "ensemble"]
    assert all(row.figures for row in made)
    assert "MemberAttack of FGSM eps 0.25" in made[1].cells()["under"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["softmax.fgms"], "did you mean softmax.fgsm"),
        (["mpdbm"], "mpdbm cannot be run: "),
        ([], "--quick"),
        (["softmax.fgsm", "--quick"], "--quick"),
    ],
)
def test_refuses_what_cannot_be_run(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *given]) == 2
    assert said in capsys.readouterr().err


def test_names_missing_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words("softmax.fgsm", data="elsewhere"))
    assert "elsewhere" in capsys.readouterr().err


def test_lists_ids_and_costs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["run", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in load().claims)
    assert "25 minutes a seed on one CPU core" in printed


def test_removes_paths_of_this_machine(tmp_path: Path) -> None:
    known = {tmp_path / "runs": "paper_runs", Path("."): "data"}
    record = {"a": [f"{tmp_path}/runs/x.ckpt", "/elsewhere/y.ckpt", "eval", "./MNIST", "."], "b": {"c": 1, "d": None}}
    assert _without_paths(record, known) == {
        "a": ["paper_runs/x.ckpt", "y.ckpt", "eval", "data/MNIST", "data"],
        "b": {"c": 1, "d": None},
    }


def test_place(tmp_path: Path) -> None:
    run = load().runs["softmax"]
    assert place(tmp_path, run, 0) == tmp_path / "controls" / "mnist_softmax.json"
    assert place(tmp_path, run, 2) == tmp_path / "controls" / "mnist_softmax_seed2.json"
    hidden = load().runs["hidden_none"]
    assert place(ROOT / "results", hidden, 0).name == "hidden_none_seed0.json"


def test_commands_of_the_page() -> None:
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        assert command[:3] == ["python", "-m", "adv_lightning.paper"]
        options = _parser().parse_args(command[3:])
        for name in getattr(options, "ids", []):
            assert name in load().claims


@pytest.mark.slow
def test_other_seeds_are_within_the_spread(mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tracked, again = Results(ROOT / "results"), Results(tmp_path / "out")
    given = ["--seed", "7", "--data.root", str(mnist_root), "--runs", str(tmp_path / "runs")]
    assert main(["run", "softmax", "logistic", *given, "--out", str(tmp_path / "out")]) == 0
    before, after = (_values(list(rows(load(), results))) for results in (tracked, again))
    assert before.keys() == after.keys()
    assert len(before) >= 6
    for key, values in before.items():
        assert len(values) >= 3
        centre, (value,) = sum(values) / len(values), after[key]
        spread = max(values) - min(values)
        # Three seeds know their own spread but roughly: a further one may lie as far again outside of it.
        assert abs(value - centre) <= max(2 * spread, 0.002), key


def _values(found: list[Row]) -> dict[tuple[str, str], list[float]]:
    """The figures of the two runs, with those under other attacks than the paper's."""
    chosen = [row for row in found if row.run is not None and row.run.name in ("softmax", "logistic")]
    return {(row.claim.id, row.quantity.name): [figure.value for figure in row.figures] for row in chosen}
