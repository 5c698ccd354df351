"""Early stopping and checkpoints watch the adversarial validation error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from adv_lightning import FGSM, AdversarialCheckpoint, AdversarialEarlyStopping, AdversarialModule
from tests.support.helpers import batches, fit, mlp, quiet_trainer


class Scripted(AdversarialModule):
    """Trains as usual, but reports the given errors, one per epoch."""

    def __init__(self, adv: list[float], clean: list[float] | None = None, **kwargs: Any) -> None:
        super().__init__(mlp(), kwargs.pop("attack", FGSM(0.1)), **kwargs)
        self.adv, self.clean = adv, clean or [0.5] * len(adv)

    def on_validation_epoch_end(self) -> None:
        self.log("val/error", self.clean[self.current_epoch])
        if self.judged_under_attack:
            self.log("val/adv_error", self.adv[self.current_epoch])


FIGURES = [0.9, 0.7, 0.8, 0.75, 0.6, 0.65, 0.61, 0.62, 0.5, 0.1]


def run(module: Scripted, *callbacks: Callback, **kwargs: Any) -> Trainer:
    kwargs.setdefault("max_epochs", len(module.adv))
    return fit(module, batches(1), batches(1), callbacks=list(callbacks), **kwargs)


@pytest.mark.parametrize(("patience", "epochs", "best"), [(1, 3, 1), (2, 4, 1), (3, 8, 4), (4, 10, 9), (20, 10, 9)])
def test_patience_and_best_epoch(patience: int, epochs: int, best: int) -> None:
    stopping = AdversarialEarlyStopping(patience=patience)
    trainer = run(Scripted(FIGURES), stopping)
    assert trainer.current_epoch == epochs
    assert stopping.best_epoch == best
    assert stopping.best_score.item() == pytest.approx(FIGURES[best])


def test_clean_error_does_not_stop_training() -> None:
    stopping = AdversarialEarlyStopping(patience=2)
    falling = [0.9 - 0.05 * i for i in range(10)]
    assert run(Scripted(falling, clean=[0.01] * 10), stopping).current_epoch == 10


def test_min_delta() -> None:
    stopping = AdversarialEarlyStopping(patience=2, min_delta=0.15)
    assert run(Scripted(FIGURES), stopping).current_epoch == 4
    assert stopping.best_epoch == 1


def test_counts_only_epochs_with_the_metric() -> None:
    # Measured in epochs 1, 3, 5, 7 and 9: .7, .75, .65, .62, .1.
    stopping = AdversarialEarlyStopping(patience=2)
    trainer = run(Scripted(FIGURES, val_attack_every_n_epochs=2), stopping)
    assert trainer.current_epoch == 10
    assert stopping.best_epoch == 9
    worse = [0.9, 0.7, 0.9, 0.75, 0.9, 0.8, 0.9, 0.9, 0.9, 0.9]
    stopping = AdversarialEarlyStopping(patience=2)
    trainer = run(Scripted(worse, val_attack_every_n_epochs=2), stopping)
    assert trainer.current_epoch == 6
    assert (stopping.best_epoch, stopping.wait_count) == (1, 2)


def test_best_checkpoint_is_from_an_epoch_with_the_metric(tmp_path: Path) -> None:
    falling = [0.9 - 0.05 * i for i in range(7)]
    checkpoint = AdversarialCheckpoint(dirpath=tmp_path)
    run(Scripted(falling, val_attack_every_n_epochs=2), checkpoint, enable_checkpointing=True)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 5
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 6


@pytest.mark.parametrize(
    ("figures", "arguments", "lines"),
    [
        (
            FIGURES,
            {"patience": 2},
            [
                r"Stopped after epoch 3: .*val/adv_error did not improve in the last 2 records\..*",
                r"Best val/adv_error: 0\.7000 in epoch 1\.",
            ],
        ),
        (
            FIGURES,
            {"stopping_threshold": 0.65},
            [
                r"Stopped after epoch 4: Stopping threshold reached: val/adv_error = 0\.6.* < 0\.65\.",
                r"Best val/adv_error: 0\.6000 in epoch 4\.",
            ],
        ),
        (
            [0.5, 0.6, 0.95],
            {"divergence_threshold": 0.9},
            [
                r"Stopped after epoch 2: Divergence threshold reached: val/adv_error = 0\.9.*",
                r"Best val/adv_error: 0\.5000 in epoch 0\.",
            ],
        ),
        ([float("nan"), 0.5], {}, [r"Stopped after epoch 0: .*val/adv_error = nan is not finite\..*"]),
        ([0.5, 0.4, 0.45], {}, [r"Best val/adv_error: 0\.4000 in epoch 1\."]),
    ],
)
def test_says_the_reason_and_the_best_epoch(
    figures: list[float], arguments: dict[str, Any], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("adv_lightning.callbacks.early_stopping.rank_zero_info", said.append)
    run(Scripted(figures), AdversarialEarlyStopping(**arguments))
    assert len(said) == len(lines)
    for text, line in zip(said, lines, strict=True):
        assert re.fullmatch(line, text), text


@pytest.mark.parametrize(("figures", "best"), [([0.9, 0.4, 0.1], 1), ([0.3], 0), ([0.9, 0.4, 0.45], 1)])
def test_score_at_the_threshold_is_the_best(figures: list[float], best: int) -> None:
    stopping = AdversarialEarlyStopping(stopping_threshold=0.5, min_delta=0.6)
    run(Scripted(figures), stopping)
    assert (stopping.best_epoch, stopping.best_score.item()) == (best, pytest.approx(figures[best]))
    assert stopping.stopped_epoch == best


def test_past_the_threshold_only_a_lower_score_is_better() -> None:
    stopping = AdversarialEarlyStopping(stopping_threshold=0.5)
    run(Scripted([0.9, 0.4, 0.45, 0.3, 0.35]), stopping, min_epochs=5)
    assert (stopping.best_epoch, stopping.best_score.item()) == (3, pytest.approx(0.3))


def test_restores_its_state() -> None:
    first = AdversarialEarlyStopping(patience=3)
    run(Scripted(FIGURES), first, max_epochs=4)
    second = AdversarialEarlyStopping(patience=3)
    second.load_state_dict(first.state_dict())
    assert (second.best_epoch, second.wait_count) == (1, 2)
    assert second.best_score == first.best_score
    assert second.state_dict() == first.state_dict()


def test_resumed_run_stops_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    run(Scripted(FIGURES), AdversarialEarlyStopping(patience=3), max_epochs=6).save_checkpoint(tmp_path / "a.ckpt")
    stopping = AdversarialEarlyStopping(patience=3)
    trainer = quiet_trainer(max_epochs=10, callbacks=[stopping])
    trainer.fit(Scripted(FIGURES), batches(1), batches(1), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert (trainer.current_epoch, stopping.best_epoch) == (8, 4)


def test_without_an_attack_both_watch_the_clean_error_and_say_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("adv_lightning.callbacks.monitor_key.rank_zero_info", said.append)
    clean = [0.5, 0.3, 0.4, 0.35, 0.2]
    stopping, checkpoint = AdversarialEarlyStopping(patience=2), AdversarialCheckpoint(dirpath=tmp_path)
    module = Scripted(clean, clean=clean, attack=None)
    trainer = run(module, stopping, checkpoint, enable_checkpointing=True)
    assert trainer.current_epoch == 4
    assert (stopping.best_epoch, stopping.monitor, checkpoint.monitor) == (1, "val/error", "val/error")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1
    trainer.validate(module, batches(1), verbose=False)
    (line,) = said
    assert re.search(r"val/error .*val/adv_error", line)


def test_watches_a_val_attack_without_a_training_attack() -> None:
    stopping = AdversarialEarlyStopping(patience=2)
    run(Scripted(FIGURES, attack=None, val_attack=FGSM(0.1)), stopping)
    assert (stopping.monitor, stopping.best_epoch) == ("val/adv_error", 1)


def test_keeps_the_best_and_the_last(tmp_path: Path) -> None:
    figures = [0.9, 0.7, 0.8, 0.6, 0.65]
    weights: list[torch.Tensor] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            weights.append(pl_module.backbone[0].weight.detach().clone())

    run(Scripted(figures), AdversarialCheckpoint(dirpath=tmp_path), Watch(), enable_checkpointing=True)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}
    for name, epoch in (("best", 3), ("last", 4)):
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == epoch
        assert torch.equal(checkpoint["state_dict"]["backbone.0.weight"], weights[epoch])
    assert not torch.equal(weights[3], weights[4])


def test_without_a_monitor_keeps_only_the_last(tmp_path: Path) -> None:
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path)
    run(Scripted([0.9, 0.1, 0.5]), checkpoint, enable_checkpointing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 2
    assert Path(checkpoint.last_model_path) == tmp_path / "last.ckpt"


def test_without_validation_keeps_the_last(tmp_path: Path) -> None:
    module, checkpoint = AdversarialModule(mlp(), FGSM(0.1)), AdversarialCheckpoint(monitor=None, dirpath=tmp_path)
    fit(module, batches(2), max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 2


def test_both_watch_a_real_error(tmp_path: Path) -> None:
    stopping, checkpoint = AdversarialEarlyStopping(patience=3), AdversarialCheckpoint(dirpath=tmp_path)
    module = AdversarialModule(mlp(), FGSM(0.3))
    val = batches(4, seed=4)
    trainer = fit(module, batches(4), val, max_epochs=30, callbacks=[stopping, checkpoint], enable_checkpointing=True)
    assert trainer.current_epoch < 30
    assert stopping.best_epoch == trainer.current_epoch - 4
    best = AdversarialModule.load_from_checkpoint(tmp_path / "best.ckpt", backbone=mlp())
    trainer = quiet_trainer()
    (figures,) = trainer.validate(best, val, verbose=False)
    assert figures["val/adv_error"] == pytest.approx(stopping.best_score.item())


def test_ignores_epochs_before_start_epoch(tmp_path: Path) -> None:
    figures = [0.9, 0.1, 0.8, 0.6, 0.65, 0.7, 0.7]
    stopping = AdversarialEarlyStopping(patience=2, start_epoch=3)
    checkpoint = AdversarialCheckpoint(dirpath=tmp_path, start_epoch=3)
    trainer = run(Scripted(figures), stopping, checkpoint, enable_checkpointing=True)
    assert trainer.current_epoch == 6  # patience counts from there too
    assert stopping.best_epoch == 3
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 3
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 5


def test_run_that_ends_before_start_epoch_keeps_the_last(tmp_path: Path) -> None:
    checkpoint = AdversarialCheckpoint(dirpath=tmp_path, start_epoch=3)
    stopping = AdversarialEarlyStopping(patience=1, start_epoch=3)
    run(Scripted([0.1, 0.2, 0.3]), stopping, checkpoint, enable_checkpointing=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert stopping.best_epoch is None


@pytest.mark.parametrize("kind", [AdversarialEarlyStopping, AdversarialCheckpoint])
def test_refuses_a_negative_start_epoch(kind: type[Callback]) -> None:
    with pytest.raises(ValueError, match="start_epoch=-1"):
        kind(start_epoch=-1)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_callbacks_that_served_another_training_begin_anew(tmp_path: Path) -> None:
    stopping, kept = AdversarialEarlyStopping(patience=2), AdversarialCheckpoint(dirpath=tmp_path)
    first, second = Scripted([0.1, 0.2]), Scripted([0.5, 0.4])
    files = []
    for module in (first, second):
        run(module, stopping, kept, enable_checkpointing=True, max_epochs=2)
        files.append((kept.best_model_path, kept.last_model_path))
    assert (kept.best_model_score, stopping.best_score, stopping.best_epoch) == (0.4, 0.4, 1)
    assert stopping.wait_count == 0
    assert len(set(files[0] + files[1])) == 4
    assert all(Path(path).is_file() for pair in files for path in pair)
