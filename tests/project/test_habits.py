"""What Lightning users do by habit works, or is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Loss
from adv_lightning.attacks import input_gradient
from tests.support.helpers import batches, fit, mlp, quiet_trainer

NO_VALIDATION = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def test_attack_replaced() -> None:
    (x, y) = next(iter(batches(1)))
    module = AdversarialModule(mlp(), FGSM(0.1))
    fresh = AdversarialModule(mlp(), FGSM(0.3))
    module.attack = FGSM(0.3)
    assert torch.equal(module.objective(x, y).total, fresh.objective(x, y).total)
    module.attack = None
    assert module.objective(x, y).adversarial is None


@NO_VALIDATION
def test_hooks_without_super() -> None:
    class Habits(AdversarialModule):
        def on_fit_start(self) -> None: ...
        def on_train_epoch_start(self) -> None: ...
        def on_validation_epoch_start(self) -> None: ...
        def on_test_epoch_start(self) -> None: ...

    data = batches(3)
    module, plain = Habits(mlp(), FGSM(0.1)), AdversarialModule(mlp(), FGSM(0.1))
    figures = []
    for one in (module, plain):
        trainer = fit(one, data, data, max_epochs=2)
        figures.append({name: value.item() for name, value in trainer.callback_metrics.items()})
    assert figures[0] == figures[1]


class Sharp(Loss):
    """A loss of the user's own."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(3 * logits, y)

    def probabilities(self, logits: Tensor) -> Tensor:
        return (3 * logits).softmax(dim=-1)


@NO_VALIDATION
def test_warns_of_a_loss_lost_in_reloading(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), loss_fn=Sharp())
    trainer = fit(module, batches(1))
    trainer.save_checkpoint(tmp_path / "sharp.ckpt")
    with pytest.warns(UserWarning, match=r"Sharp\(\).*SoftmaxLoss\(\).*loss_fn="):
        AdversarialModule.load_from_checkpoint(tmp_path / "sharp.ckpt", backbone=mlp())
    again = AdversarialModule.load_from_checkpoint(tmp_path / "sharp.ckpt", backbone=mlp(), loss_fn=Sharp())
    assert isinstance(again.loss_fn, Sharp)


@NO_VALIDATION
@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
def test_save_hyperparameters_in_a_subclass(tmp_path: Path) -> None:
    class Mine(AdversarialModule):
        def __init__(self, smoothing: float = 0.1, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.save_hyperparameters()
            self.smoothing = smoothing

    trainer = fit(Mine(smoothing=0.3, backbone=net().double(), attack=FGSM(0.2)), batches(1))
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    again = Mine.load_from_checkpoint(tmp_path / "mine.ckpt", backbone=net().double())
    assert (again.smoothing, again.attack.eps) == (0.3, 0.2)


def test_refuses_one_logit() -> None:
    module = AdversarialModule(nn.Linear(6, 1), FGSM(0.1), loss_fn=lambda z, y: F.softplus(z).mean())
    data = torch.utils.data.DataLoader([(torch.randn(4, 6), torch.zeros(4).long())], batch_size=None)
    with pytest.raises(ValueError, match=r"\[4, 1\].*LogisticLoss"):
        quiet_trainer().validate(module, data, verbose=False)


@NO_VALIDATION
def test_eval_crafting_starts_anew_each_step() -> None:
    (x, y) = next(iter(batches(1)))
    module = AdversarialModule(mlp(), PGD(0.1, steps=1), crafting="eval")
    starts = [module.method.craft(module, x, y) for _ in range(2)]
    assert len(starts) == 2
    assert not torch.equal(*starts)
    module.eval()
    starts = [module.method.craft(module, x, y) for _ in range(2)]
    assert torch.equal(*starts)


def test_small_gradients_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    half = nn.Linear(64, 3)
    nn.init.normal_(half.weight, std=1e-6, generator=generator)
    half = half.half()
    x, y = torch.rand(32, 64, generator=generator), torch.arange(32) % 3
    exact = input_gradient(copy.deepcopy(half).float(), x, y, loss_fn=F.cross_entropy).grad
    naive_input = x.half().requires_grad_()
    (naive,) = torch.autograd.grad(F.cross_entropy(half(naive_input), y), naive_input)
    found = input_gradient(half, x.half(), y, loss_fn=F.cross_entropy).grad
    clear = exact.abs() > exact.abs().median()
    assert (naive[clear] == 0).float().mean() > 0.3
    assert torch.equal(found[clear].sign(), exact[clear].sign())


@NO_VALIDATION
def test_checkpoint_keeps_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    trainer: Trainer = fit(AdversarialModule(mlp(), FGSM(0.1)), batches(1))
    trainer.save_checkpoint(tmp_path / "seeded.ckpt")
    assert torch.load(tmp_path / "seeded.ckpt", weights_only=True)["adv_lightning_seed"] == 7
