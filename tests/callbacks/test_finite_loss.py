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
    """Batches of noise, one of which holds a NaN."""
    loader = batches(number)
    x, _ = loader.batches[at]
    x[0, 0] = torch.nan
    return loader


@pytest.mark.parametrize(("every", "at"), [(1, 2), (3, 2), (3, 3), (50, 5), (50, 1)])
def test_training_ends_and_the_batch_is_named(every: int, at: int) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    with pytest.raises(NotFiniteError, match=rf"clean_loss nan, adv_loss nan in batch {at} of epoch 0"):
        fit(module, with_nan(6, at), callbacks=[FiniteLoss(every)], max_epochs=3)
    assert module.trainer.global_step <= max(at + every, 6)


def test_the_term_is_named() -> None:
    class Fragile(nn.Module):
        """Breaks where its input lies beyond 5, which only the attack makes it do."""

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + torch.where(x.abs().amax(1, keepdim=True) > 5, torch.inf, 0.0)

    module = AdversarialModule(Fragile(), FGSM(9.0))
    with pytest.raises(NotFiniteError, match=r"loss nan, clean_loss \d\.\d+, adv_loss nan in batch 0 of epoch 0"):
        fit(module, batches(3), callbacks=[FiniteLoss()])


def test_a_training_that_goes_well_is_left_alone() -> None:
    weights = []
    for callbacks in ([], [FiniteLoss(1)]):
        module = AdversarialModule(mlp(), FGSM(0.1))
        fit(module, batches(6), callbacks=callbacks, max_epochs=2)
        weights.append(nn.utils.parameters_to_vector(module.parameters()))
    assert torch.equal(*weights)


class Spoil(torch.optim.SGD):
    """From its fourth step on it leaves NaN in the weights, after losses that were fine."""

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


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=Spoil)
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path)
    # Two steps an epoch: the fourth is the last of the second epoch.
    with pytest.raises(
        NotFiniteError, match=r"backbone\.0\.weight holds numbers that are not finite after epoch 1"
    ) as e:
        fit(module, batches(2), callbacks=[checkpoint, FiniteLoss()], enable_checkpointing=True, max_epochs=3)
    assert str(tmp_path / "last.ckpt") in str(e.value)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["epoch"] == 0
    assert all(value.isfinite().all() for value in stored["state_dict"].values())


def test_a_loss_that_is_not_finite_is_found_before_a_checkpoint_is_written(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path, every_n_train_steps=2)
    with pytest.raises(NotFiniteError, match="in batch 3 of epoch 0"):
        fit(module, with_nan(9, 3), callbacks=[FiniteLoss(1000), checkpoint], enable_checkpointing=True)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_the_command_line_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", str(ROOT / "configs" / "digits.yaml"), f"--trainer.default_root_dir={tmp_path}"]
    words += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e30", "--trainer.enable_progress_bar=false"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--trainer.max_epochs=2"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "error: the loss is not finite: loss " in said
    assert "There is no checkpoint from before." in said
    assert "Traceback" not in said


def test_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every_n_batches=0: give at least 1"):
        FiniteLoss(0)


def test_weights_that_are_not_finite_are_not_saved_alone_either(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), optimizer=Spoil)
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path, save_weights_only=True)
    with pytest.raises(NotFiniteError, match=r"backbone\.0\.weight holds numbers that are not finite after epoch 1"):
        fit(module, batches(2), callbacks=[checkpoint, FiniteLoss()], enable_checkpointing=True, max_epochs=3)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in stored["state_dict"].values())


class Skips(FiniteLoss):
    """In a training whose GradScaler skips the steps that overflow."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        trainer.precision_plugin.scaler = object()
        super().on_train_batch_end(trainer, *args)
        del trainer.precision_plugin.scaler


def judged_by(callback: FiniteLoss, losses: list[float]) -> None:
    """Show the callback a training of these losses, two batches an epoch."""
    module = AdversarialModule(mlp(), FGSM(0.1))
    trainer = quiet_trainer()
    for i, loss in enumerate(losses):
        module.newest = (torch.tensor(loss), None, None)
        trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = i % 2 == 1
        callback.on_train_batch_end(trainer, module, None, None, i % 2)


def test_a_scaler_that_skips_steps_may_see_some_that_are_not_finite() -> None:
    inf = float("inf")
    judged_by(Skips(4), [inf, 1, 1, 1, 1, inf, inf, inf])
    with pytest.raises(NotFiniteError, match="the loss is not finite: loss inf in batch 0 of epoch 0"):
        judged_by(Skips(4), [inf] * 4)
    with pytest.raises(NotFiniteError, match="the loss is not finite: loss inf in batch 0 of epoch 0"):
        judged_by(FiniteLoss(4), [inf, 1])
