"""A module's checkpoint is read safely, and builds the module again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adv_lightning import FGSM, PGD, AdversarialModule
from tests.support.helpers import batches, fit, mlp, quiet_trainer, weights


def saved(tmp_path: Path, module: AdversarialModule) -> Path:
    path = tmp_path / "module.ckpt"
    fit(module, batches(3), batches(1)).save_checkpoint(path)
    return path


@pytest.mark.filterwarnings("ignore:.*eps is 8/255:UserWarning")
def test_rebuilds_a_module(tmp_path: Path) -> None:
    module = AdversarialModule(
        mlp(), FGSM("8/255", bounds=(-3, 3)), alpha=0.3, val_attack=PGD(0.2, steps=3), crafting="eval", masks="shared",
        statistics="clean", lr_interval="step", val_attack_samples=5, val_attack_every_n_epochs=2,
        predict_attacked=True,
    )  # fmt: skip
    path = saved(tmp_path, module)
    again = AdversarialModule.load_from_checkpoint(path, backbone=mlp(seed=9))
    x = next(iter(batches(1)))[0]
    assert torch.equal(again(x), module(x))
    assert isinstance(again.attack, FGSM)
    assert isinstance(again.val_attack, PGD)
    assert again.attack.config() == module.attack.config()
    assert again.val_attack.config() == module.val_attack.config()
    for name in (
        "alpha", "passes", "lr_interval", "val_attack_samples", "val_attack_every_n_epochs", "predict_attacked"
    ):  # fmt: skip
        assert getattr(again, name) == getattr(module, name), name
    changed = AdversarialModule.load_from_checkpoint(path, backbone=mlp(), alpha=0.9, attack=FGSM(0.5))
    assert changed.alpha == 0.9
    assert changed.attack.eps == 0.5


def test_asks_for_the_backbone(tmp_path: Path) -> None:
    path = saved(tmp_path, AdversarialModule(mlp(), FGSM(0.1)))
    with pytest.raises(TypeError, match=r"AdversarialModule\.load_from_checkpoint\(.*backbone="):
        AdversarialModule.load_from_checkpoint(path)


def test_safe_to_read_and_has_a_format(tmp_path: Path) -> None:
    path = saved(tmp_path, AdversarialModule(mlp(), FGSM(0.1)))
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["adv_lightning_format"] == 2
    assert checkpoint["hyper_parameters"]["attack"] == FGSM(0.1).config()
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"backbone"}


def test_refuses_a_later_format(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    path = saved(tmp_path, module)
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"adv_lightning_format": 3}, path)
    with pytest.raises(ValueError, match=r"format 3.*2"):
        AdversarialModule.load_from_checkpoint(path, backbone=mlp())
    with pytest.raises(ValueError, match="format 3"):
        quiet_trainer().test(module, batches(1), ckpt_path=path, verbose=False)


def test_resumes_exactly(tmp_path: Path) -> None:
    loader, path = batches(4), tmp_path / "half.ckpt"
    whole = AdversarialModule(mlp(), FGSM(0.1))
    fit(whole, loader, max_epochs=4)
    half = AdversarialModule(mlp(), FGSM(0.1))
    fit(half, loader, max_epochs=2).save_checkpoint(path)
    rest = AdversarialModule(mlp(seed=5), FGSM(0.1))
    quiet_trainer(max_epochs=4, limit_val_batches=0).fit(rest, loader, loader, ckpt_path=path)
    assert torch.equal(weights(rest), weights(whole))
