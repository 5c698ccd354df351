"""What a checkpoint may have built: classes of the kind that belongs in a place, and nothing outside the run."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adv_lightning.cli import main
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.evaluation.metrics_record import changing_callbacks
from adv_lightning.methods.checkpoint_format import DATA, described
from adv_lightning.methods.stored_classes import check_classes
from tests.conftest import ROOT

STORED = ROOT / "tests" / "support" / "stored" / "format_1.ckpt"
called: list[Any] = []


def canary(*args: Any) -> None:
    """A function that a file has no business to call."""
    called.append(args)


class Canary:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        called.append(args)

    def __call__(self, *args: Any) -> None:
        called.append(args)


@pytest.fixture(autouse=True)
def _none_called() -> None:
    called.clear()


@pytest.fixture
def stored() -> dict[str, Any]:
    content: dict[str, Any] = torch.load(STORED, weights_only=True)
    return content


FUNCTION, CLASS = f"{__name__}.canary", f"{__name__}.Canary"


@pytest.mark.parametrize("named", [FUNCTION, CLASS, {"class_path": CLASS}, {"class_path": FUNCTION}])
@pytest.mark.parametrize(
    "place", ["backbone", "loss_fn", "optimizer", "lr_scheduler", "attack", "method", "val_attack"]
)
def test_builds_no_other_class_and_calls_no_function(
    place: str, named: Any, stored: dict[str, Any], tmp_path: Path
) -> None:
    stored["hyper_parameters"][place] = named
    path = tmp_path / "evil.ckpt"
    torch.save(stored, path)
    with pytest.raises(ValueError, match=re.escape(str(path))) as refused:
        load_module(path)
    assert "\n" not in str(refused.value)
    assert called == []


@pytest.mark.parametrize("named", [{"class_path": CLASS}, {"class_path": FUNCTION}])
@pytest.mark.parametrize("place", ["loss_fn", "optimizer"])
def test_nor_does_the_command_line(
    place: str, named: Any, stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored["hyper_parameters"][place] = named
    torch.save(stored, tmp_path / "evil.ckpt")
    for words in (
        ["test", f"--ckpt_path={tmp_path / 'evil.ckpt'}"],
        ["compare", f"--checkpoints=[{tmp_path}/evil.ckpt]"],
    ):
        with pytest.raises(SystemExit):
            main(words)
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
        assert re.search(rf"evil\.ckpt names {named['class_path']}, .*nn\.Module", line)
    assert called == []


def test_functions_that_return_a_network_may_be_named() -> None:
    check_classes({"class_path": "torchvision.models.resnet18", "loss_fn": "torch.nn.functional.cross_entropy"}, "a")
    with pytest.raises(ValueError, match=r"a names os\.system"):
        check_classes([{"init_args": {"x": {"class_path": "os.system"}}}], "a")


ODD: list[Any] = [None, True, -1, 2**70, 0.5, float("nan"), "", "x", "a.b", [], {}, {"a": 1.0}, torch.ones(2, 3), CLASS]


def places(nest: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    for key, value in nest.items() if isinstance(nest, dict) else ():
        yield from places(value, (*place, key))


@pytest.mark.filterwarnings("ignore")
def test_any_setting_is_taken_or_refused_in_one_line(stored: dict[str, Any], tmp_path: Path) -> None:
    path, refused = tmp_path / "evil.ckpt", 0
    for number, (*outer, last) in enumerate(list(places(stored["hyper_parameters"]))[1:]):
        for value in ODD[number % len(ODD) :: len(ODD)]:  # one in each place, to be quick
            changed = copy.deepcopy(stored)
            inner = changed["hyper_parameters"]
            for key in outer:
                inner = inner[key]
            inner[last] = value
            torch.save(changed, path)
            try:
                load_module(path)
            except ValueError as error:
                refused += 1
                message = str(error)
            else:
                continue
            assert str(path) in message
            assert "\n" not in message
    assert refused > 0
    assert called == []


def test_a_file_does_not_ask_for_a_download(
    stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "elsewhere"
    stored[DATA] = {"_class_path": "adv_lightning.data.CIFAR10DataModule", "root": str(root), "download": True}
    description = described(stored, DATA)
    assert description is not None
    assert description["init_args"] == {"root": str(root)}
    torch.save(stored, "evil.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path=evil.ckpt", "--trainer.logger=false"])
    assert re.search(r"error: .*elsewhere", capsys.readouterr().err)
    assert not root.exists()


def test_the_command_line_names_a_file_whose_class_is_not_there(
    stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored["hyper_parameters"]["_class_path"] = "no.Such"
    torch.save(stored, tmp_path / "evil.ckpt")
    with pytest.raises(SystemExit):
        main(["test", f"--ckpt_path={tmp_path / 'evil.ckpt'}"])
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert re.search(r"evil\.ckpt.*No module named 'no'", line)


def test_config_beside_a_checkpoint_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys.py").write_text("raise SystemExit('this must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    settings = {"mine": {"class_path": "somebodys.Thing"}, "pictures": {"class_path": "AdversarialPictures"}}
    known = {"shown": {"class_path": "adv_lightning.evaluation.AdversarialPictures"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"callbacks": settings | known}))
    assert changing_callbacks(tmp_path / "checkpoints" / "a.ckpt") == settings
