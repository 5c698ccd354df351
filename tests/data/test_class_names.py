"""Data whose classes have other labels than in training are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from adv_lightning import FGSM, AdversarialModule, Comparison
from adv_lightning.cli import main
from adv_lightning.data import DigitsDataModule, ImageFolderDataModule
from adv_lightning.data.class_names import check_class_names, class_names
from tests.support.helpers import quiet_trainer


class Named(TensorDataset):
    """A data set with names, as torchvision's have."""

    def __init__(self, *names: str) -> None:
        super().__init__(torch.rand(6, 4), torch.arange(6) % len(names))
        self.class_to_idx = {name: label for label, name in enumerate(names)}


def loader(*names: str) -> Any:
    return DataLoader(Named(*names), batch_size=3)


def test_names_are_found() -> None:
    named, bare = Named("a", "b"), TensorDataset(torch.zeros(3))
    for source in (
        named,
        loader("a", "b"),
        DataLoader(Subset(named, [0, 1])),
        ConcatDataset([named, named]),
        [loader("a", "b")],
        {"x": DataLoader(bare), "y": loader("a", "b")},
        SimpleNamespace(classes=["a", "b"]),
        SimpleNamespace(class_to_idx={"b": 1, "a": 0}),
    ):
        assert class_names(None, source) == ["a", "b"], source
    assert class_names(DigitsDataModule(classes=[7, 3])) == ["7", "3"]
    for source in (
        None,
        bare,
        DataLoader(bare),
        [1, 2],
        SimpleNamespace(classes=[3, 7]),
        SimpleNamespace(classes="ab"),
    ):
        assert class_names(source) is None


@pytest.mark.parametrize("here", [["b", "a"], ["b", "c"], ["0", "a", "b"], ["b"], ["a", "c", "b"]])
def test_another_label_is_refused(here: list[str]) -> None:
    with pytest.raises(ValueError, match=r"Mine.*label"):
        check_class_names(["a", "b"], here, "Mine")


def test_other_names_are_warned_of_and_fewer_are_none() -> None:
    with pytest.warns(UserWarning, match="label 0 is x, was a, 1 is y, was b"):
        check_class_names(["a", "b"], ["x", "y"], "Mine")
    for here in (["a", "b"], ["a"], ["a", "b", "c"], None, []):
        check_class_names(["a", "b"], here, "Mine")
    check_class_names(None, ["a"], "Mine")


def trained(tmp_path: Path, *names: str) -> tuple[AdversarialModule, Path]:
    module = AdversarialModule(nn.Linear(4, 3), FGSM(0.1))
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, loader(*names), loader(*names))
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    return module, tmp_path / "it.ckpt"


CALLS: dict[str, Callable[[AdversarialModule, Any, Path], Any]] = {
    "test": lambda module, data, path: quiet_trainer().test(module, data, ckpt_path=path, verbose=False),
    "validate": lambda module, data, path: quiet_trainer().validate(module, data, ckpt_path=path, verbose=False),
    "predict": lambda module, data, path: quiet_trainer().predict(module, data, ckpt_path=path),
    "fit": lambda module, data, path: quiet_trainer(max_epochs=2).fit(module, data, data, ckpt_path=path),
}
NO_WORKERS = pytest.mark.filterwarnings("ignore:The .* does not have many workers")


@NO_WORKERS
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_checkpoint_knows_its_classes(call: Callable[..., Any], tmp_path: Path) -> None:
    _, path = trained(tmp_path, "ant", "bee")
    fresh = AdversarialModule(nn.Linear(4, 3), FGSM(0.1))
    with pytest.raises(ValueError, match="label 0 is bee, was ant"):
        call(fresh, loader("bee", "zebra"), path)
    with pytest.warns(UserWarning, match="label 0 is x, was ant"):
        call(AdversarialModule(nn.Linear(4, 3), FGSM(0.1)), loader("x", "y"), path)
    call(AdversarialModule(nn.Linear(4, 3), FGSM(0.1)), loader("ant", "bee"), path)


@NO_WORKERS
def test_a_module_in_memory_or_reloaded_knows_them_and_new_training_forgets_them(tmp_path: Path) -> None:
    module, path = trained(tmp_path, "ant", "bee")
    again = AdversarialModule.load_from_checkpoint(path, backbone=nn.Linear(4, 3))
    for each in (module, again):
        assert each.trained_classes == ["ant", "bee"]
        with pytest.raises(ValueError, match="label 0 is bee"):
            quiet_trainer().test(each, loader("bee", "ant"), verbose=False)
    again.train()
    quiet_trainer().fit(again, loader("bee", "ant"), loader("bee", "ant"))
    assert again.trained_classes == ["bee", "ant"]
    quiet_trainer().test(again, loader("bee", "ant"), verbose=False)


@NO_WORKERS
def test_validation_of_other_classes_than_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label 0 is bee"):
        quiet_trainer().fit(AdversarialModule(nn.Linear(4, 3), FGSM(0.1)), loader("ant", "bee"), loader("bee"))


@NO_WORKERS
def test_a_comparison_of_networks_for_other_classes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    nets = {"a": trained(tmp_path / "a", "ant", "bee")[0], "b": trained(tmp_path / "b", "bee", "ant")[0]}
    with pytest.raises(ValueError, match="label 0 is ant, was bee"):
        quiet_trainer().test(Comparison(nets, FGSM(0.1)), loader("ant", "bee"), verbose=False)


def test_a_folder_with_a_renamed_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (4, 4), (50 * i, 0, 0)).save(tmp_path / "pictures" / part / name / f"{i}.png")
    words = [
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    data = ["--data=ImageFolderDataModule", f"--data.root={tmp_path / 'pictures'}", "--data.image_size=4"]
    model = ["--model.backbone=SoftmaxRegression", "--model.attack=FGSM", "--model.attack.eps=0.1"]
    main(["fit", *words, *data, *model, "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"])
    for part in ("train", "test"):
        (tmp_path / "pictures" / part / "ant").rename(tmp_path / "pictures" / part / "zebra")
    assert ImageFolderDataModule(str(tmp_path / "pictures")).class_names == ["bee", "zebra"]
    with pytest.raises(SystemExit) as refused:
        main(["test", *words, "--ckpt_path=last", "--callbacks.attack_suite=null"])
    assert refused.value.code == 2
    assert "label 0 is bee, was ant" in capsys.readouterr().err
