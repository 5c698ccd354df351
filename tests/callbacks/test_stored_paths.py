"""A checkpoint from elsewhere: whatever it says, the run goes on or names it, and no other file changes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from adv_lightning import (
    FGSM,
    AdversarialCheckpoint,
    AdversarialEarlyStopping,
    AdversarialModule,
    GivenSettings,
    WholeCheckpointIO,
)
from adv_lightning.callbacks.stored_paths import found_again, is_inside, is_same
from tests.support.helpers import batches, mlp, quiet_trainer

Made = tuple[Path, dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")

DATA = batches(2)


def run(folder: Path, epochs: int, ckpt_path: Path | None = None, kept: ModelCheckpoint | None = None) -> Trainer:
    """Train in folder/run, each epoch better than the last by a scripted figure."""
    kept = kept or AdversarialCheckpoint(dirpath=folder / "run")
    trainer = quiet_trainer(
        max_epochs=epochs,
        callbacks=[kept, AdversarialEarlyStopping(), GivenSettings(), Timer()],
        enable_checkpointing=True,
        plugins=[WholeCheckpointIO()],
    )
    module = Better(mlp(), FGSM(0.1), lr_scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1))
    trainer.fit(module, DATA, DATA, ckpt_path=ckpt_path, weights_only=True)
    return trainer


class Better(AdversarialModule):
    def on_validation_epoch_end(self) -> None:
        self.log("val/adv_error", 1 / (2 + self.current_epoch))


def beside(folder: Path) -> dict[Path, bytes | None]:
    """Everything in the folder but the run and the crafted file."""
    own = (folder / "run", folder / "evil.ckpt")
    found = [path for path in folder.rglob("*") if not any(path == each or each in path.parents for each in own)]
    return {path: path.read_bytes() if path.is_file() else None for path in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A folder with a run of one epoch, and precious things beside it; and what its last checkpoint holds."""
    folder = tmp_path_factory.mktemp("made")
    run(folder, 1)
    (folder / "precious" / "inner").mkdir(parents=True)
    for name in ("precious/inner/notes.txt", "precious/other.ckpt", "precious/best.ckpt"):
        (folder / name).write_bytes(b"mine")
    (folder / "run" / "link").symlink_to(folder / "precious")
    return folder, torch.load(folder / "run" / "last.ckpt", weights_only=True)


def state_of(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    return next(state for key, state in checkpoint["callbacks"].items() if key.startswith(name))


def paths_outside(folder: Path) -> list[str]:
    inside = folder / "run"
    return [
        str(folder / "precious"),
        str(folder / "precious" / "other.ckpt"),
        f"{inside}/../precious",
        f"{inside}/../precious/other.ckpt",
        f"{inside}/link",
        f"{inside}/link/other.ckpt",
        f"local://{folder}/precious",
        f"file://{folder}/precious/other.ckpt",
    ]


@pytest.mark.filterwarnings("ignore:.* is not removed")
@pytest.mark.parametrize("key", ["best_k_models", "last_model_path"])
@pytest.mark.parametrize("kind", [AdversarialCheckpoint, ModelCheckpoint])
def test_nothing_beside_the_run_is_removed(kind: type[ModelCheckpoint], key: str, made: Made) -> None:
    folder, before = made[0], beside(made[0])
    for path in paths_outside(folder):
        checkpoint = copy.deepcopy(made[1])
        state = state_of(checkpoint, "AdversarialCheckpoint")
        if key == "best_k_models":
            state |= {key: {path: torch.tensor(0.9)}, "kth_best_model_path": path, "kth_value": torch.tensor(0.9)}
            state["best_model_path"] = path
        else:
            state[key] = path
        kept: ModelCheckpoint = AdversarialCheckpoint(dirpath=folder / "run")
        if kind is ModelCheckpoint:  # Lightning's own has only the plugin to guard it
            kept = ModelCheckpoint(folder / "run", monitor="val/adv_error", save_last=True)
            state["dirpath"] = str(folder / "run")
            key_of_ours = next(each for each in checkpoint["callbacks"] if each.startswith("AdversarialCheckpoint"))
            checkpoint["callbacks"][kept.state_key] = checkpoint["callbacks"].pop(key_of_ours)
        torch.save(checkpoint, folder / "evil.ckpt")
        assert run(folder, 2, folder / "evil.ckpt", kept).current_epoch == 2
        assert beside(folder) == before, path


@pytest.mark.parametrize("kind", [AdversarialCheckpoint, ModelCheckpoint])
def test_only_checkpoints_of_the_run_are_removed(kind: type[ModelCheckpoint], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(tmp_path, 1)
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    state = state_of(checkpoint, "AdversarialCheckpoint")
    for other in ("../elsewhere", ""):
        state["run"] = other
        torch.save(checkpoint, folder / f"other{len(other)}.ckpt")
    for name in ("notes.txt", "weights.ckpt"):
        (folder / name).write_bytes(b"mine")
    others = [each for each in folder.iterdir() if each.name not in ("last.ckpt", "best.ckpt")]
    if kind is ModelCheckpoint:  # one of Lightning's own does not say who wrote it
        others = [each for each in others if each.read_bytes() == b"mine"]
    before = {path: path.read_bytes() for path in others}
    for path in others:
        state |= {"run": "..", "best_k_models": {str(path): torch.tensor(0.9)}, "best_model_path": str(path)}
        state |= {"kth_best_model_path": str(path), "kth_value": torch.tensor(0.9), "last_model_path": str(path)}
        kept: ModelCheckpoint = AdversarialCheckpoint(dirpath=folder)
        if kind is ModelCheckpoint:
            kept = ModelCheckpoint(folder, monitor="val/adv_error", save_last=True)
            state["dirpath"] = str(folder)
            ours = next(each for each in checkpoint["callbacks"] if state is checkpoint["callbacks"][each])
            checkpoint["callbacks"][kept.state_key] = checkpoint["callbacks"].pop(ours)
        torch.save(checkpoint, tmp_path / "evil.ckpt")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is not removed")
            run(tmp_path, 2, tmp_path / "evil.ckpt", kept)
        assert {path: path.read_bytes() for path in others} == before, path


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_file_of_another_run_is_not_replaced(name: str, tmp_path: Path) -> None:
    run(tmp_path, 1)
    (tmp_path / "run" / "last.ckpt").rename(tmp_path / "from.ckpt")
    path = tmp_path / "run" / name
    checkpoint = torch.load(tmp_path / "from.ckpt", weights_only=True)
    state = state_of(checkpoint, "AdversarialCheckpoint")
    torch.save(checkpoint, tmp_path / "from.ckpt")
    state["run"] = "../elsewhere"
    torch.save(checkpoint, path)
    before = path.read_bytes()
    run(tmp_path, 3, tmp_path / "from.ckpt")
    assert path.read_bytes() == before
    new = f"{path.stem}-v1.ckpt"
    assert new in {each.name for each in path.parent.iterdir()}


def test_a_run_that_continues_among_its_files_takes_them_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(tmp_path, 1)
    for path in folder.iterdir():  # as if a logger had given the first run another folder
        checkpoint = torch.load(path, weights_only=True)
        state_of(checkpoint, "AdversarialCheckpoint")["run"] = "../logs/version_0"
        torch.save(checkpoint, path)
    run(tmp_path, 3, folder / "last.ckpt")
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert {torch.load(path, weights_only=True)["epoch"] for path in folder.iterdir()} == {2}


def test_a_continued_run_still_removes_its_own(tmp_path: Path) -> None:
    for epochs, name in ((1, None), (3, "last.ckpt")):
        kept = AdversarialCheckpoint(dirpath=tmp_path / "run", filename="best-{epoch}", save_top_k=2)
        run(tmp_path, epochs, name and tmp_path / "run" / name, kept)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best-epoch=1.ckpt",
        "best-epoch=2.ckpt",
        "last.ckpt",
    }


def test_another_name_of_the_new_file_is_not_removed(made: Made) -> None:
    folder, checkpoint = made[0], copy.deepcopy(made[1])
    alias = f"{folder}/run/../run/best.ckpt"
    state_of(checkpoint, "AdversarialCheckpoint")["best_k_models"] = {alias: torch.tensor(0.9)}
    torch.save(checkpoint, folder / "evil.ckpt")
    run(folder, 2, folder / "evil.ckpt")
    assert torch.load(folder / "run" / "best.ckpt", weights_only=True)["epoch"] == 1


def test_a_best_checkpoint_that_is_gone_is_forgotten(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    folder, checkpoint = made[0], copy.deepcopy(made[1])
    gone = str(folder / "gone.ckpt")
    state = state_of(checkpoint, "AdversarialCheckpoint")
    state |= {"best_k_models": {gone: torch.tensor(0.0)}, "best_model_path": gone}
    torch.save(checkpoint, folder / "evil.ckpt")
    with caplog.at_level("INFO"):
        kept = run(folder, 2, folder / "evil.ckpt").checkpoint_callback
    assert isinstance(kept, AdversarialCheckpoint)
    assert kept.best_model_score == pytest.approx(1 / 3)
    assert Path(kept.best_model_path).parent == folder / "run"
    assert f"Forgetting the former best checkpoint, {gone}" in caplog.text


def test_where_a_path_leads(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (other / "a.ckpt").touch()
    (own / "link").symlink_to(other)
    (own / "a.ckpt").symlink_to(other / "a.ckpt")
    (own / "loop").symlink_to(own / "loop")
    for path in (
        other / "a.ckpt",
        own,
        own / "..",
        own / "link" / "a.ckpt",
        own / "a.ckpt",
        own / ".." / "other" / "x",
    ):
        assert not is_inside(path, own), path
    assert not is_inside("\0", own)
    assert not is_inside("s3://bucket/../a", "s3://bucket")
    assert not is_inside(own / "x.ckpt", "")
    assert is_inside(own / "x.ckpt", own)
    assert is_inside(own / "deep" / ".." / "x.ckpt", own)
    assert is_inside("s3://bucket/a", "s3://bucket")
    assert is_same(own / ".." / "own" / "x", own / "x")
    assert not is_same("\0", own)
    assert found_again(str(other / "a.ckpt"), [own]) == str(other / "a.ckpt")
    assert found_again(str(tmp_path / "moved" / "a.ckpt"), [None, other]) == str(other / "a.ckpt")
    assert found_again("local:///a.ckpt", [own]) == found_again("\0", [own]) == found_again("", [own]) == ""


# The plugin by itself


def test_the_plugin_removes_checkpoints_only(tmp_path: Path) -> None:
    plugin, path = WholeCheckpointIO(), tmp_path / "run" / "a.ckpt"
    plugin.save_checkpoint({"state_dict": {}}, path)
    (tmp_path / "run" / "folder").mkdir()
    (tmp_path / "elsewhere.ckpt").touch()
    for kept in (tmp_path / "run" / "folder", tmp_path / "elsewhere.ckpt", tmp_path / "run" / ".." / "elsewhere.ckpt"):
        with pytest.warns(UserWarning, match=rf"{kept.name} is not removed"):
            plugin.remove_checkpoint(kept)
        assert kept.exists()
    plugin.remove_checkpoint(path)
    plugin.remove_checkpoint(tmp_path / "run" / "gone.ckpt")
    assert not path.exists()


def test_the_plugin_removes_sharded_checkpoints(tmp_path: Path) -> None:
    sharded = tmp_path / "a.ckpt"
    sharded.mkdir()
    for name in (".metadata", "meta.pt", "__0_0.distcp"):
        (sharded / name).touch()
    (sharded / "notes.txt").touch()
    with pytest.warns(UserWarning, match="is not removed"):
        WholeCheckpointIO().remove_checkpoint(sharded)
    (sharded / "notes.txt").unlink()
    WholeCheckpointIO().remove_checkpoint(sharded)
    assert not sharded.exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    for name in ("a.ckpt.partial", "a.ckpt"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    WholeCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert not (tmp_path / "a.ckpt").is_symlink()


# Any value in any place


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a nest, inner ones too."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from leaves(each, (*place, key))


def replaced(nest: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(nest)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 5),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["..", "../precious", "run/../precious/other.ckpt", "/", "\0", "a" * 5000, "local:///"]),
    st.just([]),
    st.just({}),
    st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.sampled_from([torch.tensor(float("nan")), torch.tensor(1j), torch.ones(2, 3), torch.tensor(3), torch.ones(0)]),
)


SETTINGS = ("param_groups", "lr_schedulers")
"""Whether a number is sensible there, torch knows."""


@pytest.mark.filterwarnings("ignore")
@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_value_is_taken_or_refused_in_one_line(made: Made, data: Any) -> None:
    folder, whole = made
    place = data.draw(st.sampled_from([place for place in leaves(whole) if place[0] != "state_dict"]))
    value = data.draw(VALUES)
    number = isinstance(value, bool | int | float | torch.Tensor)
    assume(not (number and any(each in SETTINGS for each in place)))
    before, error = beside(folder), None
    torch.save(replaced(whole, place, value), folder / "evil.ckpt")
    try:
        run(folder, 2, folder / "evil.ckpt")
    except (ValueError, MisconfigurationException) as refused:
        error = str(refused)
    assert beside(folder) == before
    assert error is None or "\n" not in error
    assert error is None or str(folder / "evil.ckpt") in error or "upgrade" in error or "max_epochs" in error


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("global_step",), "x", "a whole number"),
        (("epoch",), -1, "a whole number"),
        (("callbacks", "AdversarialCheckpoint", "best_k_models"), {"a": "b"}, "a tensor of one real number"),
        (("callbacks", "AdversarialCheckpoint", "best_model_path"), 3, "a string"),
        (("callbacks", "AdversarialEarlyStopping", "best_score"), torch.tensor(float("nan")), "one real number"),
        (("callbacks", "AdversarialEarlyStopping", "stopping_reason"), 99, "one of"),
        (("callbacks", "GivenSettings", "given"), [], "a mapping"),
        (("callbacks", "Timer", "time_elapsed"), {"train": "x"}, "a finite number"),
        (
            ("loops", "fit_loop", "epoch_progress", "current"),
            {"ready": 0, "started": 1, "processed": 1, "completed": 1},
            "falling",
        ),
        (("optimizer_states", 0, "state", 0, "exp_avg"), torch.ones(1), "its shape"),
        (("optimizer_states",), [], "1 states, one an optimizer"),
        (("loops",), {}, "a mapping"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), float("nan"), "a number"),
        (("lr_schedulers", 0, "gamma"), "x", "a number"),
        (("adv_lightning_means",), {"epoch": {}}, "means"),
        (("adv_lightning_means",), {"epoch": {"steps": torch.tensor(0), "examples": torch.tensor(1j)}}, "means"),
        (("adv_lightning_means",), {"epoch": {"steps": torch.tensor(0), "size": torch.tensor(math.nan)}}, "means"),
        (("adv_lightning_means",), {"epoch": {"steps": torch.tensor(0), "size": torch.ones(2, 3)}}, "means"),
        (("adv_lightning_classes",), torch.ones(2), "a list of a string"),
        (("adv_lightning_converted",), [1], "a list of places"),
        (("optimizer_states", 0, "param_groups", 0, "params"), [], "4 numbers"),
        (("hyper_parameters",), [], "a mapping"),
        (("pytorch-lightning_version",), "x", "a version"),
    ],
)
def test_names_the_file_the_place_and_what_is_expected(
    place: tuple[Any, ...], value: Any, expected: str, made: Made
) -> None:
    folder, whole = made
    if place[0] == "callbacks":
        key = next(key for key in whole["callbacks"] if key.startswith(place[1]))
        place = ("callbacks", key, *place[2:])
    torch.save(replaced(whole, place, value), folder / "evil.ckpt")
    with pytest.raises(ValueError, match=rf"evil\.ckpt is damaged: .*{expected}.*another checkpoint") as refused:
        run(folder, 2, folder / "evil.ckpt")
    assert str(place[-2 if expected == "falling" else -1]) in str(refused.value)
    assert "\n" not in str(refused.value)
