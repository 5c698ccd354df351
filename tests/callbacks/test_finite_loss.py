from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adv_lightning import FGSM, AdversarialCheckpoint, AdversarialModule, FiniteLoss, NotFiniteError
from adv_lightning.cli import main
from tests.conftest import ROOT
from tests.support.helpers import Batches, batches, fit, mlp, quiet_trainer


def with_nan(number: int, at: int) -> Batches:
    """Batches of noise; batch `at` holds a NaN."""
    loader = batches(number)
    x, _ = loader.batches[at]
    x[0, 0] = torch.nan
    return loader


@pytest.mark.parametrize(("every", "at"), [(1, 2), (3, 2), (3, 3), (50, 5), (50, 1)])
def test_ends_training_and_names_the_batch(every: int, at: int) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    with pytest.raises(NotFiniteError, match=rf"clean_loss nan, adv_loss nan in batch {at} of epoch 0"):
        fit(module, with_nan(6, at), callbacks=[FiniteLoss(every)], max_epochs=3)
    assert module.trainer.global_step <= max(at + every, 6)


@pytest.mark.filterwarnings("ignore:FGSM.*eps is larger than the range")
def test_names_the_term() -> None:
    class Fragile(nn.Module):
        """Infinite if an input lies beyond 5, as only the attack makes it."""

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + torch.where(x.abs().amax(1, keepdim=True) > 5, torch.inf, 0.0)

    module = AdversarialModule(Fragile(), FGSM(9.0))
    with pytest.raises(NotFiniteError, match=r"loss nan, clean_loss \d\.\d+, adv_loss nan in batch 0 of epoch 0"):
        fit(module, batches(3), callbacks=[FiniteLoss()])


def test_changes_no_finite_training() -> None:
    weights = []
    for callbacks in ([], [FiniteLoss(1)]):
        module = AdversarialModule(mlp(), FGSM(0.1))
        fit(module, batches(6), callbacks=callbacks, max_epochs=2)
        weights.append(nn.utils.parameters_to_vector(module.parameters()))
    assert torch.equal(*weights)


class Spoil(torch.optim.SGD):
    """SGD that puts NaN into the weights from its fourth step on; the losses before are finite."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1)
        self.steps = 0

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = super().step(closure)
        self.steps += 1
        if self.steps >= 4:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.nan)
        return loss


@pytest.mark.parametrize("save_weights_only", [False, True])
def test_saves_no_weights_that_are_not_finite(save_weights_only: bool, tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=Spoil)
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path, save_weights_only=save_weights_only)
    # With two steps per epoch, the fourth is the last of epoch 1.
    with pytest.raises(NotFiniteError, match=r"backbone\.0\.weight .*NaN.* epoch 1") as raised:
        fit(module, batches(2), callbacks=[checkpoint, FiniteLoss()], enable_checkpointing=True, max_epochs=3)
    assert str(tmp_path / "last.ckpt") in str(raised.value)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["epoch"] == 0
    assert all(value.isfinite().all() for value in stored["state_dict"].values())


def test_checks_the_loss_before_a_checkpoint(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path, every_n_train_steps=2)
    with pytest.raises(NotFiniteError, match="in batch 3 of epoch 0"):
        fit(module, with_nan(9, 3), callbacks=[FiniteLoss(1000), checkpoint], enable_checkpointing=True)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_command_line_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", str(ROOT / "configs" / "digits.yaml"), f"--trainer.default_root_dir={tmp_path}"]
    words += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e30", "--trainer.enable_progress_bar=false"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--trainer.limit_train_batches=5", "--callbacks.pictures=null"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "error: the loss is not finite: loss " in said
    assert "No earlier checkpoint exists." in said
    assert "Traceback" not in said


def test_refuses_fewer_than_1_batch() -> None:
    with pytest.raises(ValueError, match="every_n_batches=0"):
        FiniteLoss(0)


class Skips(FiniteLoss):
    """FiniteLoss beside a GradScaler, which skips steps that overflow."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        trainer.precision_plugin.scaler = object()
        super().on_train_batch_end(trainer, *args)
        del trainer.precision_plugin.scaler


def show(callback: FiniteLoss, losses: list[float]) -> None:
    """Show the callback a training with these losses, two batches per epoch."""
    module = AdversarialModule(mlp(), FGSM(0.1))
    trainer = quiet_trainer()
    for i, loss in enumerate(losses):
        module.newest = (torch.tensor(loss), None, None)
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = i % 2 == 1
        callback.on_train_batch_end(trainer, module, None, None, i % 2)


def test_scaler_may_skip_some_steps_but_not_all() -> None:
    inf = float("inf")
    show(Skips(4), [inf, 1, 1, 1, 1, inf, inf, inf])
    with pytest.raises(NotFiniteError, match="loss inf in batch 0 of epoch 0"):
        show(Skips(4), [inf] * 4)
    with pytest.raises(NotFiniteError, match="loss inf in batch 0 of epoch 0"):
        show(FiniteLoss(4), [inf, 1])


class Keeps(nn.Module):
    """A network with a buffer that it ruins in its second batch, and one that is infinite on purpose."""

    def __init__(self, ruin: float) -> None:
        super().__init__()
        self.net, self.ruin = mlp(), ruin
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            if self.steps > 2:
                self.mean[0] = self.ruin
        return self.net(x)


@pytest.mark.parametrize("ruin", [torch.inf, torch.nan])
def test_names_a_buffer_that_is_not_finite_any_more(ruin: float, tmp_path: Path) -> None:
    callbacks = [FiniteLoss(), AdversarialCheckpoint(dirpath=tmp_path)]
    with pytest.raises(NotFiniteError, match=r"backbone\.mean has values that are NaN or infinite"):
        fit(
            AdversarialModule(Keeps(ruin), FGSM(0.1)),
            batches(2),
            batches(1),
            callbacks=callbacks,
            enable_checkpointing=True,
        )
    assert not list(tmp_path.iterdir())


def test_a_buffer_may_be_infinite_from_the_start() -> None:
    fit(AdversarialModule(Keeps(1.0), FGSM(0.1)), batches(2), callbacks=[FiniteLoss()])


@pytest.mark.filterwarnings("ignore:FGSM.* changes no input of this batch")
def test_network_that_is_only_judged_may_have_weights_that_are_not_finite() -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    with torch.no_grad():
        next(module.parameters()).fill_(torch.nan)
    trainer = quiet_trainer(callbacks=[FiniteLoss()])
    with pytest.warns(UserWarning, match="are not finite. They count as mistakes"):
        (figures,) = trainer.validate(module, batches(2), verbose=False)
    assert figures["val/error"] == 1
