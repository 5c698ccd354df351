from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from torch import Tensor

from adv_lightning import FGSM, AdversarialModule, AttackSuite
from adv_lightning.callbacks import TimedProgressBar
from adv_lightning.cli import main
from tests.support.helpers import batches, fit, mlp, quiet_trainer

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")


@pytest.mark.parametrize(("interval", "drawn"), [(0.0, list(range(1, 11))), (1e9, [1, 10])])
def test_is_redrawn_in_time_and_after_the_last_batch(interval: float, drawn: list[int]) -> None:
    seen: list[float] = []

    class Watched(TimedProgressBar):
        def _update_metrics(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
            assert self.progress is not None
            assert self.train_progress_bar_id is not None
            if not seen or seen[-1] != self.progress.tasks[self.train_progress_bar_id].completed:
                seen.append(self.progress.tasks[self.train_progress_bar_id].completed)
            super()._update_metrics(trainer, pl_module)

    bar = Watched()
    bar.interval = interval
    fit(
        AdversarialModule(mlp(), FGSM(0.1)), batches(10), callbacks=[bar], enable_progress_bar=True, precision="64-true"
    )
    assert seen == drawn


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        ([], [TimedProgressBar]),
        (["--trainer.callbacks+=TQDMProgressBar"], [TQDMProgressBar]),
        (["--trainer.enable_progress_bar=false"], []),
    ],
)
def test_the_command_line_shows_it_unless_told(arguments: list[str], kinds: list[type], tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.fast_dev_run=true"]
    cli = main(["fit", "--config", CONFIG, *root, *arguments])
    assert [type(callback) for callback in cli.trainer.callbacks if isinstance(callback, ProgressBar)] == kinds


def test_says_which_attack_is_under_way() -> None:
    bar, seen = TimedProgressBar(), []

    class Watched(FGSM):
        def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
            assert bar.progress is not None
            assert bar.test_progress_bar_id is not None
            seen.append(bar.progress.tasks[bar.test_progress_bar_id].description)
            return super().step(value, grad)

    suite = AttackSuite({"slow one": Watched(0.1)})
    trainer = quiet_trainer(callbacks=[suite, bar], enable_progress_bar=True)
    trainer.test(AdversarialModule(mlp(), FGSM(0.1)), batches(2), verbose=False)
    assert len(seen) == 2
    assert all("slow one" in said for said in seen)
    assert bar.progress is not None
    assert "slow one" not in bar.progress.tasks[-1].description
