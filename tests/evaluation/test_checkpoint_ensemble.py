from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule, MemberAttack
from adv_lightning.cli import main
from adv_lightning.evaluation.checkpoint_ensemble import CheckpointEnsemble
from adv_lightning.models import Normalized
from tests.conftest import ROOT
from tests.support.helpers import mlp

CONFIG = str(ROOT / "configs" / "digits.yaml")
JUDGE = ["--model.attack=null", "--model.val_attack=MemberAttack", "--model.val_attack.attack=FGSM"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("member")
        arguments = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=6", "--test_after_fit=false"]
        cli = main(
            [
                "fit",
                "--config",
                CONFIG,
                f"--seed_everything={seed}",
                "--trainer.default_root_dir",
                str(folder),
                *arguments,
            ]
        )
        found.append(cli.trainer.checkpoint_callback.best_model_path)
    return found


def test_averages_the_members_probabilities(checkpoints: list[str]) -> None:
    x = torch.rand(5, 1, 8, 8)
    members = [AdversarialModule.load_from_checkpoint(path).eval() for path in checkpoints]
    mean = torch.stack([member(x).softmax(1) for member in members]).mean(dim=0)
    torch.testing.assert_close(CheckpointEnsemble(checkpoints)(x).softmax(1), mean)


def test_command_line_judges_and_reloads_it(checkpoints: list[str], tmp_path: Path) -> None:
    net = ["--model.backbone=CheckpointEnsemble", f"--model.backbone.checkpoints=[{','.join(checkpoints)}]"]
    root = ["--trainer.default_root_dir", str(tmp_path)]
    judge = [*JUDGE, "--model.val_attack.attack.eps=0.1", "--model.val_attack.member=1"]
    cli = main(["test", "--data=DigitsDataModule", *net, *judge, *root])
    x, y = next(iter(cli.datamodule.test_dataloader()))
    member = AdversarialModule.load_from_checkpoint(checkpoints[1]).eval().backbone
    crafted = FGSM(0.1)(member, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(MemberAttack(FGSM(0.1), 1)(cli.model, x, y, loss_fn=cli.model.loss), crafted)
    path = tmp_path / "ensemble.ckpt"
    cli.trainer.save_checkpoint(path, weights_only=True)
    again = AdversarialModule.load_from_checkpoint(path).eval()
    assert isinstance(again.val_attack, MemberAttack)
    assert torch.equal(again(x), cli.model(x))
    tested = main(["test", "--ckpt_path", str(path), *root])
    found, before = tested.trainer.callback_metrics, cli.trainer.callback_metrics
    assert {k: v.item() for k, v in found.items()} == {k: v.item() for k, v in before.items()}


def test_member_attack_keeps_layers_before_the_ensemble(checkpoints: list[str]) -> None:
    ensemble = CheckpointEnsemble(checkpoints)
    mean, std = [0.5], [0.2]
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    whole, member = Normalized(ensemble, mean, std).eval(), Normalized(ensemble.members[1], mean, std).eval()
    crafted = MemberAttack(FGSM(0.1), 1)(whole, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(crafted, FGSM(0.1)(member, x, y, loss_fn=F.cross_entropy))
    assert len(ensemble.members) == 2
    assert not any(module.training for module in whole.modules())


def test_refuses_members_with_another_loss(tmp_path: Path) -> None:
    arguments = ["--trainer.fast_dev_run=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=6"]
    root = ["--trainer.default_root_dir", str(tmp_path), "--test_after_fit=false"]
    cli = main(["fit", "--config", CONFIG, "--model.loss_fn=SigmoidLoss", *root, *arguments])
    path = cli.trainer.checkpoint_callback.best_model_path
    with pytest.raises(ValueError, match=r"SigmoidLoss.*SoftmaxLoss"):
        CheckpointEnsemble([path])


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoints.*nothing\.ckpt"):
        CheckpointEnsemble([str(tmp_path / "nothing.ckpt")])


def test_member_attack_refuses_missing_members() -> None:
    x, y = torch.rand(2, 6, dtype=torch.float64), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"Sequential.*no Ensemble"):
        MemberAttack(FGSM(0.1))(mlp(), x, y, loss_fn=F.cross_entropy)
    with pytest.raises(ValueError, match="member=-1"):
        MemberAttack(FGSM(0.1), -1)


class Doubles(AdversarialModule):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x)

    def loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().loss(logits, y)


def test_a_forward_of_ones_own_is_the_members(checkpoints: list[str], tmp_path: Path) -> None:
    held = torch.load(checkpoints[0], weights_only=True)
    held["hyper_parameters"]["_class_path"] = f"{Doubles.__module__}.Doubles"
    torch.save(held, tmp_path / "own.ckpt")
    with pytest.warns(UserWarning, match="Doubles has a loss of its own"):
        ensemble = CheckpointEnsemble([str(tmp_path / "own.ckpt")])
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(ensemble(x).softmax(1), CheckpointEnsemble(checkpoints[:1])(2 * x).softmax(1))
