"""What `refit` reads from a run's folder, and the runs it refuses; test_cli.py trains with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adv_lightning.cli.refit import best_epoch, refit_arguments

CONFIG: dict[str, Any] = {
    "model": {"class_path": "adv_lightning.AdversarialModule", "init_args": {"lr_scheduler": None}},
    "data": {"class_path": "adv_lightning.data.DigitsDataModule", "init_args": {"val_size": 200}},
    "trainer": {"max_epochs": 40, "callbacks": None},
}
EARLY = "AdversarialEarlyStopping{'monitor': 'val/adv_error', 'mode': 'min'}"
KEPT = "AdversarialCheckpoint{'monitor': 'val/adv_error', 'mode': 'min'}"


def save(path: Path, epoch: int, callbacks: dict[str, Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"epoch": epoch, "global_step": 10 * (epoch + 1), "state_dict": {"w": torch.zeros(3)}}
    torch.save(content if callbacks is None else content | {"callbacks": callbacks}, path)


def keeper(path: Path | str, monitor: str | None = "val/adv_error") -> dict[str, Any]:
    return {KEPT: {"monitor": monitor, "best_model_path": str(path), "best_model_score": torch.tensor(0.1)}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run whose early stopping found epoch 6 best, and whose best checkpoint is of epoch 8."""
    folder = tmp_path / "lightning_logs" / "version_0"
    best = folder / "checkpoints" / "best.ckpt"
    save(best, 8)
    stopping = {EARLY: {"best_epoch": 6, "wait_count": 3}}
    save(best.with_name("last.ckpt"), 11, {"Timer": {"time_elapsed": {}}, **stopping, **keeper(best)})
    write(folder, CONFIG)
    return folder


def write(run: Path, config: Any) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        refit_arguments(words)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


# The best epoch


def test_best_epoch_of_early_stopping(run: Path) -> None:
    assert best_epoch(run) == 6


@pytest.mark.parametrize("stopping", [{}, {EARLY: {"wait_count": 3}}, {EARLY: {"best_epoch": None}}])
def test_best_epoch_of_the_best_of_several(run: Path, stopping: dict[str, Any]) -> None:
    checkpoints = run / "checkpoints"
    for i in range(1, 6):
        save(checkpoints / f"best-v{i}.ckpt", 10 + i)
    save(checkpoints / "last.ckpt", 19, {**stopping, **keeper(checkpoints / "best-v3.ckpt")})
    assert best_epoch(run) == 13


def test_best_epoch_of_a_moved_run(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "gone" / "checkpoints"
    save(run / "checkpoints" / "epoch=4.ckpt", 4)
    save(run / "checkpoints" / "last.ckpt", 19, keeper(elsewhere / "epoch=4.ckpt"))
    assert best_epoch(run) == 4
    save(elsewhere / "epoch=4.ckpt", 17)
    assert best_epoch(run) == 4
    (run / "checkpoints" / "epoch=4.ckpt").unlink()
    assert best_epoch(run) == 17


def test_best_epoch_without_last(run: Path) -> None:
    checkpoints = run / "checkpoints"
    (checkpoints / "last.ckpt").unlink()
    for name, epoch, best in (("best", 3, "best"), ("best-v1", 5, "best-v1"), ("best-v2", 9, "best-v1")):
        save(checkpoints / f"{name}.ckpt", epoch, keeper(checkpoints / f"{best}.ckpt"))
    assert best_epoch(run) == 5


@pytest.mark.parametrize("last", [True, False])
def test_best_epoch_of_weights_alone(run: Path, last: bool) -> None:
    save(run / "checkpoints" / "last.ckpt", 19)
    if not last:
        (run / "checkpoints" / "last.ckpt").unlink()
    assert best_epoch(run) == 8


def test_refuses_a_run_without_monitor(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = run / "checkpoints" / "best.ckpt"
    save(run / "checkpoints" / "last.ckpt", 19, keeper(best, monitor=None))
    assert "best epoch is unknown" in refused([f"--run={run}"], capsys)


def test_refuses_several_files_of_weights_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run / "checkpoints" / "best-v1.ckpt", 9)
    save(run / "checkpoints" / "last.ckpt", 19)
    assert "best epoch is unknown" in refused([f"--run={run}"], capsys)


def test_refuses_a_run_without_checkpoints(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert re.search("best epoch is unknown.*checkpoints/last.ckpt", refused([f"--run={run}"], capsys))


def test_names_a_missing_best_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(run / "checkpoints" / "last.ckpt", 19, keeper("/nowhere/best-v3.ckpt"))
    assert "best-v3.ckpt" in refused([f"--run={run}"], capsys)


@pytest.mark.parametrize("name", ["last", "best"])
@pytest.mark.parametrize("kept", [0, 10, 300, -200])
def test_names_a_checkpoint_that_was_cut_short(
    run: Path, name: str, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoints" / f"{name}.ckpt"
    path.write_bytes(path.read_bytes()[:kept])
    if name == "best":
        save(run / "checkpoints" / "last.ckpt", 19, keeper(path))
    assert f"{path} " in refused([f"--run={run}"], capsys)


@pytest.mark.parametrize("content", [[1, 2], {"w": torch.zeros(2)}])
def test_names_a_file_that_is_not_a_checkpoint(run: Path, content: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, run / "checkpoints" / "last.ckpt")
    assert re.search("last.ckpt .*checkpoint of a Lightning run", refused([f"--run={run}"], capsys))


# The arguments of fit


def test_resets_other_limits(run: Path) -> None:
    words = refit_arguments([f"--run={run}", "--trainer.max_epochs=3", "--seed_everything", "1"])
    assert words[:2] == ["fit", f"--config={run / 'config.yaml'}"]
    assert set(words[2:-3]) == {
        "--ckpt_path=null",
        "--data.val_size=0",
        "--trainer.max_epochs=7",
        "--trainer.min_epochs=null",
        "--trainer.max_steps=-1",
        "--trainer.min_steps=null",
        "--trainer.max_time=null",
        "--callbacks.early_stopping=null",
        "--callbacks.checkpoint.monitor=null",
        "--callbacks.checkpoint.save_last=true",
    }
    assert words[-3:] == ["--trainer.max_epochs=3", "--seed_everything", "1"]


# Runs that need their validation


@pytest.mark.parametrize(
    "data", [None, {"class_path": "mine.Data"}, {"class_path": "mine.Data", "init_args": {"n": 1}}]
)
def test_refuses_data_without_val_size(run: Path, data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(run, CONFIG | {"data": data})
    said = refused([f"--run={run}"], capsys)
    name = "null" if data is None else r"mine\.Data"
    assert re.search(rf"data is {name}, .*val_size", said)


def test_accepts_own_data_with_val_size(run: Path) -> None:
    write(run, CONFIG | {"data": {"class_path": "mine.Data", "init_args": {"val_size": 5}}})
    assert "--trainer.max_epochs=7" in refit_arguments([f"--run={run}"])


PLATEAU = {
    "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
    "init_args": {"monitor": "val/adv_error", "factor": 0.1},
}


def test_refuses_a_scheduler_of_a_validation_figure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(run, CONFIG | {"model": {"class_path": "M", "init_args": {"lr_scheduler": PLATEAU}}})
    said = refused([f"--run={run}"], capsys)
    assert re.search("model.lr_scheduler .*ReduceLROnPlateau.*val/adv_error.*--model.lr_scheduler", said)
    assert "--model.lr_scheduler=null" in refit_arguments([f"--run={run}", "--model.lr_scheduler=null"])
    assert refit_arguments([f"--run={run}", "--model.init_args.lr_scheduler", "null"])


def test_accepts_a_scheduler_of_a_training_figure(run: Path) -> None:
    scheduler = PLATEAU | {"init_args": {"monitor": "train/loss_epoch"}}
    write(run, CONFIG | {"model": {"class_path": "M", "init_args": {"lr_scheduler": scheduler}}})
    assert refit_arguments([f"--run={run}"])


def test_refuses_a_callback_of_a_validation_figure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}
    write(run, CONFIG | {"trainer": {"callbacks": [{"class_path": "Timer"}, stopping]}})
    assert re.search("trainer.callbacks .*EarlyStopping.*val/loss", refused([f"--run={run}"], capsys))
    assert refit_arguments([f"--run={run}", "--trainer.callbacks=null"])


def test_refuses_a_folder_of_validation_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures" / "val").mkdir(parents=True)
    (tmp_path / "merged").mkdir()
    arguments = {"root": str(tmp_path / "pictures"), "val_size": 0}
    write(run, CONFIG | {"data": {"class_path": "adv_lightning.data.ImageFolderDataModule", "init_args": arguments}})
    said = refused([f"--run={run}"], capsys)
    assert f"{tmp_path / 'pictures' / 'val'} " in said
    assert "--data.root" in said
    assert refit_arguments([f"--run={run}", f"--data.root={tmp_path / 'merged'}"])[-1].endswith("merged")
    (tmp_path / "pictures" / "val").rmdir()
    assert refit_arguments([f"--run={run}"])


# The folder of the run


@pytest.mark.parametrize(
    "place",
    [
        "lightning_logs",
        ".",
        "lightning_logs/version_0/checkpoints",
        "lightning_logs/version_0/checkpoints/best.ckpt",
        "lightning_logs/version_0/config.yaml",
        "lightning_logs/version_7",
    ],
)
def test_names_the_nearest_run(
    run: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parents[1])
    said = refused(["--run", place], capsys)
    assert said.startswith(f"error: --run {place}: ")
    assert said.endswith(f"config.yaml. Give the folder of a run, such as {Path('lightning_logs', 'version_0')}\n")


def test_names_the_newest_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run.with_name("version_2")
    other.mkdir()
    write(other, CONFIG)
    run.with_name("version_1").mkdir()
    assert refused([f"--run={run.parent}"], capsys).endswith(f"such as {run} or {other}\n")


@pytest.mark.parametrize("text", ["a: [", "- a", ""])
def test_names_an_unreadable_config(run: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        refit_arguments([f"--run={run}"])
    assert capsys.readouterr().err.startswith(f"error: {run / 'config.yaml'} is not ")


# Damaged files

ODD: list[Any] = [None, True, -1, 2**70, 0.5, float("nan"), "", "x", "../x", [], [[]], {}, {"a": 1}]
MORE = {
    "model": {"class_path": "a.B", "init_args": {"lr_scheduler": {"class_path": "a.C", "init_args": {"monitor": "x"}}}},
    "data": {"class_path": "adv_lightning.data.ImageFolderDataModule", "init_args": {"val_size": 2, "root": "r"}},
    "trainer": {"callbacks": [{"class_path": "a.D", "init_args": {"monitor": "y"}}]},
}


def places(nest: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = nest.items() if isinstance(nest, dict) else enumerate(nest) if isinstance(nest, list) else ()
    return [place, *(each for key, value in items for each in places(value, (*place, key)))]


def replaced(nest: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copied = nest.copy()
    copied[place[0]] = replaced(nest[place[0]], place[1:], value)
    return copied


def accepted(run: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the run is accepted; else it must be refused in one line that names a file of the run."""
    try:
        refit_arguments([f"--run={run}"])
    except SystemExit:
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        assert str(run) in line
        return False
    capsys.readouterr()
    return True


def test_any_value_in_a_config_is_taken_or_refused_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for place in places(MORE):
        for value in ODD:
            write(run, replaced(MORE, place, value))
            found.append(accepted(run, capsys))
    assert set(found) == {True, False}


def test_any_value_in_a_checkpoint_is_taken_or_refused_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    whole = torch.load(last, weights_only=True)
    found = []
    for place in places(whole):
        for value in ODD:
            torch.save(replaced(whole, place, value), last)
            found.append(accepted(run, capsys))
    assert set(found) == {True, False}
