"""Checkpoints from elsewhere: each is read, or a line says what it lacks and what to do."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch import nn

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.cli import main
from adv_lightning.data import DigitsDataModule
from tests.conftest import ROOT

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--callbacks.attack_suite=null"]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"]


def _net(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class Scripted(AdversarialModule):
    """Stands for a class of a script: `__main__` is another module where the checkpoint is read."""

    def __init__(self, hidden: int = 3, **kwargs: Any) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, 10)), **kwargs)


class FixesAttack(AdversarialModule):
    def __init__(self, backbone: nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, attack=FGSM(0.1), **kwargs)


class OptionalNetwork(AdversarialModule):
    def __init__(self, backbone: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(backbone or _net(), **kwargs)


class OfLightning(LightningModule):
    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(64, width)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _saved(module: LightningModule, path: Path) -> Path:
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=DigitsDataModule())
    trainer.save_checkpoint(path)
    return path


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command that is refused says: one line."""
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--trainer.logger=false"])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert not re.search("Traceback|Namespace", printed)
    (line,) = (line for line in printed.splitlines() if line.startswith("error: "))
    return line.removeprefix("error: ")


MADE_IN_PYTHON: dict[str, tuple[Callable[[], LightningModule], str]] = {
    "in Python": (
        lambda: AdversarialModule(_net(), FGSM(0.1)),
        "holds the weights of a module of the class AdversarialModule, made in Python, but not the code of its "
        "network. Pass the network: in Python AdversarialModule.load_from_checkpoint(path, backbone=net), "
        "on the command line --model.backbone=mypackage.Net",
    ),
    "in a script": (
        lambda: Scripted(attack=FGSM(0.1)),
        "holds the weights of a module of the class Scripted, made in a script, but not the code of its network. "
        "Pass the network: in Python Scripted.load_from_checkpoint(path, backbone=net), on the command line "
        "--model.backbone=mypackage.Net or --model=mypackage.Scripted, with the class in a module that can be imported",
    ),
    "with no network by default": (
        lambda: OptionalNetwork(),
        "holds the weights of a module of the class OptionalNetwork",
    ),
    "by Lightning alone": (
        OfLightning,
        "was made by a LightningModule that is no AdversarialModule. Load it with the load_from_checkpoint of its own "
        "class, and pass its network on: AdversarialModule(module.net, attack=...)",
    ),
}


@pytest.mark.parametrize("name", MADE_IN_PYTHON)
def test_module_without_its_network_is_explained(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = MADE_IN_PYTHON[name]
    monkeypatch.setattr(Scripted, "__module__", "__main__")
    path = _saved(make(), tmp_path / "a.ckpt")
    assert f"model: {path} {said}" in _said(capsys, "validate", f"--ckpt_path={path}", "--data=DigitsDataModule")
    assert f"model: {path} {said}" in _said(capsys, "fit", f"--ckpt_path={path}", "--data=DigitsDataModule")
    other = _saved(make(), tmp_path / "b.ckpt")
    attack = ("--attack=FGSM", "--attack.eps=0.1", "--data=DigitsDataModule")
    assert f"{path}: the module was built in Python" in _said(
        capsys, "compare", f"--checkpoints=[{path},{other}]", *attack
    )
    if name == "with no network by default":  # the class is imported here
        assert isinstance(AdversarialModule.load_from_checkpoint(path), OptionalNetwork)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*holds a __main__.Scripted, and is loaded as")
        with pytest.raises(TypeError, match=re.escape(f"{path} {said}")):
            AdversarialModule.load_from_checkpoint(path)


@pytest.mark.parametrize("wrong", ["classes", "names"])
def test_weights_that_do_not_fit_are_one_line(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _saved(AdversarialModule(_net(), FGSM(0.1)), tmp_path / "a.ckpt")
    said = {
        "classes": "the weights do not fit the network: 2 of another shape, first backbone.1.weight: "
        "[10, 64] in the file, [9, 64] here. Give the network that was trained, with the arguments that it had",
        "names": "the weights do not fit the network: 2 not in the file, first backbone.weight; "
        "2 in the file alone, first backbone.1.weight. Give the network",
    }[wrong]
    with pytest.raises(RuntimeError, match=f"^{re.escape(said)}"):
        AdversarialModule.load_from_checkpoint(path, backbone=_net(9) if wrong == "classes" else nn.Linear(64, 10))
    words = ("--model.backbone=SoftmaxRegression", "--data=DigitsDataModule")
    assert "the weights do not fit the network: 2 not in the file, first backbone.linear.weight" in _said(
        capsys, "validate", f"--ckpt_path={path}", *words
    )
    of_lightning = _saved(OfLightning(), tmp_path / "b.ckpt")
    assert _said(capsys, "validate", f"--ckpt_path={of_lightning}", *words).endswith(
        "No name in the file begins with backbone., so another LightningModule made it: pass on its network"
    )


def test_weights_that_fit_load_in_part_as_in_torch() -> None:
    module = AdversarialModule(_net())
    result = module.load_state_dict({"backbone.1.bias": torch.zeros(10)}, strict=False)
    assert result.missing_keys == ["backbone.1.weight"]
    assert not module.state_dict()["backbone.1.bias"].any()
    with pytest.raises(RuntimeError, match=re.escape("first backbone.1.bias: [9] in the file, [10] here")):
        module.load_state_dict({"backbone.1.bias": torch.zeros(9)}, strict=False)
    with pytest.raises(RuntimeError, match=re.escape("expected torch.Tensor")):
        module.load_state_dict({"backbone.1.bias": [0] * 10}, strict=False)  # type: ignore[dict-item]


def test_subclass_that_fixes_an_argument_comes_back(tmp_path: Path) -> None:
    path = _saved(FixesAttack(backbone=_net()), tmp_path / "a.ckpt")
    loaded = FixesAttack.load_from_checkpoint(path, backbone=_net())
    assert loaded.method.attack is not None
    assert loaded.method.attack.eps == 0.1


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights alone": (
        lambda path: torch.save(_net().state_dict(), path),
        "is not a checkpoint of a Lightning run, but weights alone: load them into the network, "
        "net.load_state_dict(torch.load(path)), and pass it as the backbone",
    ),
    "a whole network": (
        lambda path: torch.save(_net(), path),
        "cannot be read safely: it holds an object of torch.nn.modules.container.Sequential, which could run "
        "code. If you trust it, read it with torch.load(path, weights_only=False), and save weights alone: "
        "torch.save(net.state_dict(), path)",
    ),
    "another dictionary": (
        lambda path: torch.save({"model": _net().state_dict(), "epoch": 3}, path),
        "is not a checkpoint of a Lightning run: it has no state_dict",
    ),
    "an empty file": (lambda path: path.touch(), "is not a checkpoint, or was cut short"),
}


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_no_checkpoint_is_explained(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, said = FILES[name]
    path = tmp_path / "a.pt"
    write(path)
    words = ("--model.backbone=SoftmaxRegression", "--data=DigitsDataModule")
    assert _said(capsys, "validate", f"--ckpt_path={path}", *words) == f"--ckpt_path={path} {said}"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path} {said}')}$"):
        AdversarialModule.load_from_checkpoint(path, backbone=_net())


def test_module_that_is_not_importable_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as here:
        here.syspath_prepend(ROOT / "tests" / "support" / "user_project")
        words = ["--model.backbone=mypackage.typed_net", "--data=DigitsDataModule", *SHORT, *QUIET]
        cli = main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    path = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    for module in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape(f"{path} names mypackage.typed_net, which cannot be imported")):
        AdversarialModule.load_from_checkpoint(path)
    assert "there is no module mypackage" in _said(capsys, "validate", f"--ckpt_path={path}")
    assert AdversarialModule.load_from_checkpoint(path, backbone=cli.model.backbone).backbone is cli.model.backbone


def test_checkpoint_of_lightnings_own_command_line_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", f"{__name__}.OfLightning", "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path}"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false"]
    words += ["--trainer.limit_val_batches=0"]
    monkeypatch.setattr(sys, "argv", ["train.py"])
    LightningCLI(
        OfLightning, DigitsDataModule, subclass_mode_model=True, args=["fit", *words], seed_everything_default=0
    )
    (path,) = tmp_path.rglob("*.ckpt")
    said = _said(capsys, "validate", f"--ckpt_path={path}", "--data=DigitsDataModule")
    assert said == f"model: {__name__}.OfLightning is no AdversarialModule"


@pytest.mark.parametrize("given", [None, "resnet18", nn.Linear, [nn.Linear(1, 1)]])
def test_backbone_that_is_no_network_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"'backbone' is {given!r}, expected a network")):
        AdversarialModule(given)
