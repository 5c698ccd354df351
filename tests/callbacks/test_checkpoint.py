"""When last.ckpt is written, and what stops training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from adv_lightning import AdversarialCheckpoint, AdversarialModule, WholeCheckpointIO
from tests.support.helpers import Batches, batches, mlp, quiet_trainer
from tests.support.interrupted import At


class Recorder(WholeCheckpointIO):
    """Remembers the step at which each file was written."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.written.append((Path(path).stem, checkpoint["global_step"]))
        super().save_checkpoint(checkpoint, path, storage_options)


class Resumable(Batches):
    """A loader with a state, as Lightning demands for a checkpoint in mid-epoch."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGINT)
    yield before
    signal.signal(signal.SIGINT, before)


def written(tmp_path: Path, *callbacks: Any, every: int | None = 3, **kwargs: Any) -> list[tuple[str, int]]:
    recorder, loader = Recorder(), Resumable(*batches(8))
    kept = AdversarialCheckpoint(dirpath=tmp_path, last_every_n_steps=every, monitor=None)
    trainer = quiet_trainer(
        max_epochs=2, callbacks=[*callbacks, kept], enable_checkpointing=True, plugins=[recorder], **kwargs
    )
    trainer.fit(AdversarialModule(mlp(), None), loader, loader)
    return recorder.written


def test_writes_the_last_every_n_steps_and_epochs(tmp_path: Path) -> None:
    assert written(tmp_path) == [("last", step) for step in (3, 6, 8, 9, 12, 15, 16)]


def test_writes_the_last_after_epochs_only(tmp_path: Path) -> None:
    assert written(tmp_path, every=None) == [("last", 8), ("last", 16)]


def test_validation_comes_before_the_write(tmp_path: Path) -> None:
    # Validation runs after 4 and 8 steps of an epoch. A step that is also a third one is written once.
    assert written(tmp_path, val_check_interval=4) == [("last", step) for step in (3, 4, 6, 8, 9, 12, 15, 16)]


def test_writes_nothing_within_an_accumulated_step(tmp_path: Path) -> None:
    assert written(tmp_path, every=1, accumulate_grad_batches=3) == [("last", step) for step in (1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize("number", [0, -1])
def test_refuses_fewer_than_1_step(number: int) -> None:
    with pytest.raises(ValueError, match=rf"last_every_n_steps={number}.*1"):
        AdversarialCheckpoint(last_every_n_steps=number)


def test_first_interrupt_finishes_the_batch_and_second_does_not(tmp_path: Path, handler: Any) -> None:
    once = At(5, lambda trainer: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit):
        written(tmp_path, once, every=None)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    signal.signal(signal.SIGINT, handler)

    def twice(trainer: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit):
        written(tmp_path / "twice", At(5, twice), every=None)
    assert list(tmp_path.glob("twice/*.ckpt")) == []


class Terminated(Callback):
    """Sends SIGTERM in the middle of the second validation."""

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 16 and not trainer.sanity_checking:
            signal.raise_signal(signal.SIGTERM)


def test_sigterm_within_validation_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        written(tmp_path, Terminated())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 15


def test_restores_the_handler_of_ctrl_c(tmp_path: Path, handler: Any) -> None:
    during: list[Any] = []
    written(tmp_path, At(2, lambda trainer: during.append(signal.getsignal(signal.SIGINT))))
    assert during != [handler]
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_resuming_restores_the_whole_state(tmp_path: Path) -> None:
    states = []
    for ckpt_path in (None, str(tmp_path / "last.ckpt")):
        kept, loader = AdversarialCheckpoint(dirpath=tmp_path), Resumable(*batches(8))
        trainer = quiet_trainer(max_epochs=1, callbacks=[kept], enable_checkpointing=True)
        trainer.fit(AdversarialModule(mlp(), None), loader, loader, ckpt_path=ckpt_path, weights_only=True)
        states.append(kept.state_dict())
    assert states[0]["current_score"] is not None
    assert states[1] == states[0]


def test_refuses_a_link_as_the_last() -> None:
    with pytest.raises(ValueError, match="save_last='link'"):
        AdversarialCheckpoint(save_last="link")
