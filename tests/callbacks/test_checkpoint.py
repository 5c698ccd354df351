"""When last.ckpt is written, and what stops a training."""

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
    """A loader that says where it is; here there is no need to go on from there."""

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


def test_the_last_is_written_every_so_many_steps_and_after_every_epoch(tmp_path: Path) -> None:
    assert written(tmp_path) == [("last", step) for step in (3, 6, 8, 9, 12, 15, 16)]


def test_after_epochs_alone(tmp_path: Path) -> None:
    assert written(tmp_path, every=None) == [("last", 8), ("last", 16)]


def test_validation_comes_first_where_both_are_due(tmp_path: Path) -> None:
    # After 4 and 8 steps of an epoch; where the third step is one of them, only validation's write is there.
    assert written(tmp_path, val_check_interval=4) == [("last", step) for step in (3, 4, 6, 8, 9, 12, 15, 16)]


def test_no_write_lies_within_an_accumulated_step(tmp_path: Path) -> None:
    assert written(tmp_path, every=1, accumulate_grad_batches=3) == [("last", step) for step in (1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_steps_below_1_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=rf"last_every_n_steps={number}: give at least 1, or null"):
        AdversarialCheckpoint(last_every_n_steps=number)


def test_an_interrupt_lets_the_batch_end_and_a_second_does_not_wait(tmp_path: Path, handler: Any) -> None:
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
    """Lets SIGTERM come in the middle of the second validation."""

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 16 and not trainer.sanity_checking:
            signal.raise_signal(signal.SIGTERM)


def test_sigterm_in_a_validation_leaves_the_last_from_before_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        written(tmp_path, Terminated())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 15


def test_afterwards_ctrl_c_does_what_it_did(tmp_path: Path, handler: Any) -> None:
    during: list[Any] = []
    written(tmp_path, At(2, lambda trainer: during.append(signal.getsignal(signal.SIGINT))))
    assert during != [handler]
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_run_that_goes_on_knows_all_that_it_knew(tmp_path: Path) -> None:
    states = []
    for ckpt_path in (None, str(tmp_path / "last.ckpt")):
        kept, loader = AdversarialCheckpoint(dirpath=tmp_path), Resumable(*batches(8))
        trainer = quiet_trainer(max_epochs=1, callbacks=[kept], enable_checkpointing=True)
        trainer.fit(AdversarialModule(mlp(), None), loader, loader, ckpt_path=ckpt_path, weights_only=True)
        states.append(kept.state_dict())
    assert states[0]["current_score"] is not None
    assert states[1] == states[0]
