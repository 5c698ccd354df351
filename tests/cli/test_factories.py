"""Functions in the place of classes: networks from factories, and losses with arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from adv_lightning.cli import main
from adv_lightning.cli.parser import ArgumentParser
from adv_lightning.methods.checkpoint_format import DATA, described
from adv_lightning.methods.stored_classes import check_classes, without_sources
from adv_lightning.module import AdversarialModule
from tests.conftest import ROOT

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = [*QUIET, "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]
JUDGED = ["--model.attack=FGSM", "--model.attack.eps=0.1", "--callbacks.attack_suite=null"]
DIGITS = ["--data=DigitsDataModule", "--data.classes=[3,7]"]

NETWORKS: dict[str, dict[str, Any]] = {
    "own function": {"class_path": "mypackage.typed_net", "init_args": {"hidden": 5}},
    "timm": {"class_path": "timm.create_model", "init_args": {"model_name": "test_resnet"}},
    "wrapped": {
        "class_path": "adv_lightning.models.Normalized",
        "init_args": {"mean": [0.5], "std": [0.5], "backbone": {"class_path": "mypackage.typed_net"}},
    },
}
_REST = [("timm", "command line"), ("wrapped", "YAML"), ("own function", "YAML"), ("own function", "command line")]
LOSSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "torch's class": (nn.CrossEntropyLoss(label_smoothing=0.25), {"label_smoothing": 0.25}),
    "weights of classes": (nn.CrossEntropyLoss(torch.tensor([1.0, 3.0])), {"weight": [1, 3]}),
}


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "user_project")


def _fit(words: list[str], folder: Path) -> Path:
    cli = main(["fit", *words, *DIGITS, *JUDGED, *SHORT, f"--trainer.default_root_dir={folder}"])
    return Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"


def _flat(described: dict[str, Any], place: str = "--model.backbone") -> list[str]:
    words = [f"{place}={described['class_path']}"]
    for name, value in described.get("init_args", {}).items():
        inner = f"{place}.{name}"
        words += _flat(value, inner) if isinstance(value, dict) else [f"{inner}={value}"]
    return words


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("timm", "YAML"),
        ("wrapped", "command line"),
        *(pytest.param(name, by, marks=pytest.mark.slow) for name, by in _REST),
    ],
)
def test_network_of_a_function_trains_and_comes_back(name: str, by: str, tmp_path: Path) -> None:
    words = _flat(NETWORKS[name])
    if by == "YAML":
        config = tmp_path / "net.yaml"
        config.write_text(yaml.safe_dump({"model": {"init_args": {"backbone": NETWORKS[name]}}}))
        words = [f"--config={config}"]
    path = _fit(words, tmp_path)
    module = AdversarialModule.load_from_checkpoint(path).eval()
    assert module(torch.rand(2, 1, 8, 8)).shape == (2, 2)
    cli = main(["validate", f"--ckpt_path={path}", *QUIET, "--trainer.logger=false", "--callbacks.attack_suite=null"])
    weights = torch.load(path, weights_only=True)["state_dict"]
    for state in (module.state_dict(), cli.model.state_dict()):
        assert all(torch.equal(state[key], weights[key]) for key in weights)
    again = [f"--ckpt_path={path}", *DIGITS, *JUDGED, *SHORT, "--trainer.max_epochs=2"]
    assert main(["fit", *again, f"--trainer.default_root_dir={tmp_path}"]).trainer.current_epoch == 2


@pytest.mark.parametrize("name", LOSSES)
def test_loss_with_arguments_is_that_of_torch(name: str, tmp_path: Path) -> None:
    reference, arguments = LOSSES[name]
    given = [f"--model.loss_fn.{key}={value}" for key, value in arguments.items()]
    path = _fit(["--model.backbone=mypackage.typed_net", "--model.loss_fn=torch.nn.CrossEntropyLoss", *given], tmp_path)
    logits, y = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 2
    assert torch.equal(AdversarialModule.load_from_checkpoint(path).loss_fn(logits, y), reference(logits, y))


def test_loss_that_is_a_function(tmp_path: Path) -> None:
    path = _fit(["--model.backbone=mypackage.typed_net", "--model.loss_fn=mypackage.typed_loss"], tmp_path)
    main(["validate", f"--ckpt_path={path}", *QUIET, "--trainer.logger=false", "--callbacks.attack_suite=null"])
    logits, y = torch.randn(7, 2), torch.arange(7) % 2
    loss = AdversarialModule.load_from_checkpoint(path).loss_fn(logits, y)
    assert torch.equal(loss, nn.functional.cross_entropy(logits, y))


MISTAKES = {
    "network says not what it returns": (
        ["--model.backbone=mypackage.untyped_net"],
        "mypackage.untyped_net does not say that it returns a Module. Annotate it: "
        "def untyped_net(...) -> torch.nn.Module",
    ),
    "loss says not what it returns": (
        ["--model.backbone=mypackage.typed_net", "--model.loss_fn=mypackage.untyped_loss"],
        "Annotate the function: def untyped_loss(...) -> torch.Tensor",
    ),
    "mistyped function": (
        ["--model.backbone=mypackage.typednet"],
        "there is no typednet in the module mypackage (did you mean typed_net",
    ),
    "mistyped argument": (
        ["--model.backbone=mypackage.typed_net", "--model.backbone.hiden=3"],
        "typed_net does not accept the argument 'hiden' (did you mean hidden?)",
    ),
    "mistyped argument of a loss": (
        [
            "--model.backbone=mypackage.typed_net",
            "--model.loss_fn=torch.nn.CrossEntropyLoss",
            "--model.loss_fn.label_smothing=.1",
        ],
        "CrossEntropyLoss does not accept the argument 'label_smothing' (did you mean label_smoothing?)",
    ),
    "argument of no class": (
        ["--model.backbone=mypackage.typed_net", "--model.loss_fn.label_smoothing=.1"],
        "no class takes the argument 'label_smoothing' yet. Give a class_path, and init_args below it",
    ),
    "weights that are no numbers": (
        [
            "--model.backbone=mypackage.typed_net",
            "--model.loss_fn=torch.nn.CrossEntropyLoss",
            "--model.loss_fn.weight=many",
        ],
        "expected numbers, as in [1.0, 2.5], got 'many'",
    ),
    "not a network": (["--model.backbone=torch.optim.Adam"], "torch.optim.Adam is no Module"),
    "no such module": (
        ["--model.backbone=no_such_package.net"],
        "there is no module no_such_package. Install it, or run the command in the folder that has it",
    ),
    "a file that the network asks for": (["--model.backbone=mypackage.Broken"], "nowhere/weights.pt"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_said_in_a_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, said = MISTAKES[name]
    with pytest.raises(SystemExit) as stopped:
        _fit(words, tmp_path)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    line = next(line for line in printed.splitlines() if line.startswith("error: "))
    assert said in line
    assert not re.search("Namespace|Union|NoneType|Traceback", printed)
    assert not list(tmp_path.iterdir())


def test_mistake_in_the_code_of_a_network_keeps_its_own_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="width 3 is too large") as raised:
        _fit(["--model.backbone=mypackage.Broken", "--model.backbone.width=3"], tmp_path)
    assert raised.value.__suppress_context__  # of the parser, which lists all that it tried
    assert raised.traceback[-1].path.parent.name == "mypackage"


MODULE = {"_class_path": "adv_lightning.AdversarialModule"}


@pytest.mark.parametrize(
    "settings",
    [
        MODULE | {"backbone": {"class_path": "mypackage.untyped_net"}},
        {"backbone": {"class_path": "os.system", "init_args": {"command": "true"}}},
        MODULE | {"loss_fn": "mypackage.untyped_loss"},
        [{"alpha": 1}, MODULE | {"loss_fn": "os.system"}],
        MODULE | {"optimizer": "os.system"},
        MODULE | {"backbone": {"class_path": "mypackage.TakesFunction", "init_args": {"make": "shutil.rmtree"}}},
        MODULE | {"backbone": {"class_path": "mypackage.TakesFunction", "init_args": {"several": ["os.remove"]}}},
        {"_class_path": "AdversarialModule", "loss_fn": "os.system"},  # a bare name, whose class is not known here
        {"_instantiator": "os.system"},
    ],
)
def test_file_may_not_name_a_function_that_does_not_say_what_it_returns(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"a\.ckpt names .*so it is not built"):
        check_classes(settings, "a.ckpt")


@pytest.mark.parametrize("parsed", [True, False])
def test_text_with_a_dot_is_not_imported(parsed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures.py").write_text("raise SystemExit('this must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    data = {"_class_path": "adv_lightning.data.ImageFolderDataModule", "root": "pictures.v2", "names": ["pictures.a"]}
    net = {"class_path": "mypackage.Broken", "init_args": {"file": "pictures.csv"}}
    check_classes([MODULE | {"backbone": net}, data] if parsed else {"file": "pictures.csv", "net": net}, "a.ckpt")


def test_data_module_of_lightning_is_not_built_from_a_file() -> None:
    demo = "lightning.pytorch.demos.mnist_datamodule.MNISTDataModule"  # it downloads without being asked
    assert described({DATA: {"_class_path": demo, "data_dir": "anywhere"}}, DATA) is None
    ours = {"_class_path": "adv_lightning.data.DigitsDataModule", "batch_size": 5}
    assert described({DATA: ours}, DATA) == {"class_path": ours["_class_path"], "init_args": {"batch_size": 5}}


def test_network_of_timm_fetches_nothing_for_a_checkpoint() -> None:
    inner = {"class_path": "timm.create_model", "init_args": {"model_name": "a", "pretrained": True}}
    stored = {"backbone": {"class_path": "Normalized", "init_args": {"backbone": inner}}, "pretrained": True}
    found = without_sources(stored)
    assert found["backbone"]["init_args"]["backbone"]["init_args"] == {"model_name": "a", "pretrained": False}
    assert found["pretrained"] is True
    assert inner["init_args"]["pretrained"] is True


def test_arguments_of_functions_are_found_through_the_ones_that_they_call() -> None:
    from torchvision.models import get_model, resnet18

    assert {"weights", "num_classes"} <= set(ArgumentParser.arguments_of(resnet18))
    assert "num_classes" in ArgumentParser.arguments_of(get_model)
