"""The watched figure was just measured, and on the examples of before."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from adv_lightning import FGSM, AdversarialCheckpoint, AdversarialEarlyStopping, AdversarialModule
from tests.callbacks.test_watching import Scripted
from tests.support.helpers import Batches, batches, mlp, quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

STILL = partial(torch.optim.SGD, lr=0.0)
"""Changes nothing, so that no later figure is better."""


class Seldom(Scripted):
    """Reports a figure at the validations of some epochs only."""

    def __init__(self, adv: list[float], epochs: set[int], key: str = "val/adv_error", **kwargs: Any) -> None:
        super().__init__(adv, **kwargs)
        self.epochs, self.key = epochs, key

    def on_validation_epoch_end(self) -> None:
        self.log("val/error", 0.5)
        if self.current_epoch in self.epochs:
            self.log(self.key, self.adv[self.current_epoch])


def train(module: Scripted, folder: Path, *, every: int = 1, **kwargs: Any) -> tuple[Trainer, Any, Any]:
    key = getattr(module, "key", "val/adv_error")
    stopping = AdversarialEarlyStopping(
        monitor=key, patience=2, check_on_train_epoch_end=kwargs.pop("at_epoch_end", None)
    )
    kept = AdversarialCheckpoint(
        monitor=key, dirpath=folder, save_on_train_epoch_end=stopping._check_on_train_epoch_end
    )
    trainer = quiet_trainer(
        max_epochs=len(module.adv),
        callbacks=[stopping, kept],
        enable_checkpointing=True,
        check_val_every_n_epoch=every,
        **kwargs,
    )
    trainer.fit(module, batches(2), batches(1))
    return trainer, stopping, kept


FIGURES = [0.9, 0.8, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.3, 0.85]


@pytest.mark.parametrize("key", ["val/adv_error", "val/mine", "mine"])
@pytest.mark.parametrize("at_epoch_end", [None, True])
def test_a_figure_that_was_not_measured_is_no_check(at_epoch_end: Any, key: str, tmp_path: Path) -> None:
    # Measured in epochs 0, 1, 5 and 9; a stale one would stop training after epoch 3.
    module = Seldom(FIGURES, {0, 1, 5, 9}, key=key)
    trainer, stopping, _ = train(module, tmp_path, at_epoch_end=at_epoch_end)
    assert (trainer.current_epoch, stopping.best_epoch, stopping.wait_count) == (10, 5, 1)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 5


@pytest.mark.parametrize("at_epoch_end", [None, True])
def test_epochs_without_a_validation_are_no_checks(at_epoch_end: Any, tmp_path: Path) -> None:
    # Validated in epochs 1, 3, 5, 7 and 9: .8, .7, .6, .4, .85.
    trainer, stopping, _ = train(Scripted(FIGURES), tmp_path, every=2, at_epoch_end=at_epoch_end)
    assert (trainer.current_epoch, stopping.best_epoch, stopping.wait_count) == (10, 7, 1)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 7


def test_later_weights_are_not_kept_for_an_earlier_figure(tmp_path: Path) -> None:
    # The figure is of 2 and 4 steps; a file is asked for at every 3rd and 5th step too.
    kept = AdversarialCheckpoint(dirpath=tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = quiet_trainer(max_epochs=2, callbacks=[kept], enable_checkpointing=True, val_check_interval=2)
    trainer.fit(Scripted([0.5, 0.4]), batches(3), batches(1))
    steps = sorted(torch.load(path, weights_only=True)["global_step"] for path in tmp_path.glob("step=*.ckpt"))
    assert steps == [2, 5]


# Other examples


VAL = batches(2, seed=4)
LINE = "which was judged on other examples"


def resume(folder: Path, caplog: pytest.LogCaptureFixture, before: Any, after: Any, **kwargs: Any) -> bool:
    """Train an epoch on the images `before`, continue on those `after`; return whether the best figure began anew."""
    anew = []
    for epochs, val, path in ((1, before, None), (2, after, folder / "last.ckpt")):
        given = {key: value[epochs - 1] for key, value in kwargs.items() if key.startswith("limit")}
        module = AdversarialModule(
            mlp(), FGSM(0.1), val_attack_samples=kwargs.get("samples", (None, None))[epochs - 1], optimizer=STILL
        )
        kept = AdversarialCheckpoint(kwargs.get("monitor", "val/adv_error"), dirpath=folder)
        stopping = AdversarialEarlyStopping(kwargs.get("monitor", "val/adv_error"))
        trainer = quiet_trainer(max_epochs=epochs, callbacks=[kept, stopping], enable_checkpointing=True, **given)
        caplog.clear()
        with caplog.at_level("INFO"):
            trainer.fit(module, batches(2), val, ckpt_path=path, weights_only=True)
        anew.append((stopping.best_epoch == epochs - 1, caplog.text.count(LINE)))
    assert anew[0] == (True, 0)
    assert anew[1] in ((True, 2), (False, 0))
    return anew[1][0]


def changed(data: Batches) -> Batches:
    """The same images but for one label."""
    (x, y), *others = data.batches
    y = y.clone()
    y[0] = (y[0] + 1) % 3
    return Batches((x, y), *others)


@pytest.mark.parametrize(
    ("after", "settings", "anew"),
    [
        (VAL, {}, False),
        (batches(2, seed=5), {}, True),
        (changed(VAL), {}, True),
        (Batches(*VAL.batches[::-1]), {}, False),
        (VAL, {"limit_val_batches": (1.0, 1)}, True),
        (VAL, {"samples": (None, 5)}, True),
        (VAL, {"samples": (None, 5), "monitor": "val/error"}, False),
    ],
)
def test_the_best_figure_begins_anew_on_other_examples(
    after: Any, settings: dict[str, Any], anew: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert resume(tmp_path, caplog, VAL, after, **settings) == anew


def loader(size: int, shuffle: bool = False, noise: float = 0.0) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 6, generator=generator, dtype=torch.float64), torch.arange(20) % 3
    return DataLoader(TensorDataset(x + noise, y), batch_size=size, shuffle=shuffle)


def test_batches_and_order_of_a_plain_loader_do_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not resume(tmp_path / "a", caplog, loader(7), loader(20))
    assert resume(tmp_path / "b", caplog, loader(7), loader(7, noise=0.1))


def test_a_validation_that_always_differs_keeps_its_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Random(Batches):
        seed = 0

        def __iter__(self) -> Any:
            Random.seed += 1
            return iter(batches(2, seed=Random.seed).batches)

    figures = [0.5, 0.6, 0.7, 0.8]
    for epochs, path in ((2, None), (4, tmp_path / "last.ckpt")):
        stopping, kept = AdversarialEarlyStopping(), AdversarialCheckpoint(dirpath=tmp_path)
        trainer = quiet_trainer(max_epochs=epochs, callbacks=[stopping, kept], enable_checkpointing=True)
        with caplog.at_level("INFO"):
            trainer.fit(Reported(figures), batches(2), Random(*VAL.batches), ckpt_path=path, weights_only=True)
        assert stopping.best_epoch == 0
    assert LINE not in caplog.text


class Reported(Scripted):
    """Reports the given errors, and what was judged."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.judged_examples = self.evaluation.examples()


@pytest.mark.parametrize("when", [{"every_n_train_steps": 1}, {"train_time_interval": timedelta(0)}])
def test_a_best_by_steps_or_time_is_kept_once_it_is_measured(when: dict[str, Any], tmp_path: Path) -> None:
    kept = AdversarialCheckpoint(dirpath=tmp_path, **when)
    trainer = quiet_trainer(max_epochs=2, callbacks=[kept], enable_checkpointing=True)
    trainer.fit(AdversarialModule(mlp(), FGSM(0.1)), batches(2), batches(2))
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert 0 <= kept.best_model_score <= 1
