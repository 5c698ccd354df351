from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from torch import Tensor

from adv_lightning import FGSM, AdversarialModule, AttackSuite
from adv_lightning.callbacks import TimedProgressBar
from adv_lightning.cli import main
from adv_lightning.cli.defaults import default_bar
from tests.support.helpers import batches, fit, mlp, quiet_trainer

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.yaml")


@pytest.mark.parametrize(("interval", "drawn"), [(0.0, list(range(1, 11))), (1e9, [1, 10])])
def test_redraws_in_time_and_after_the_last_batch(interval: float, drawn: list[int]) -> None:
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
    module = AdversarialModule(mlp(), FGSM(0.1))
    fit(module, batches(10), callbacks=[bar], enable_progress_bar=True, precision="64-true")
    assert seen == drawn


@pytest.mark.parametrize(
    ("arguments", "kind"), [([], TimedProgressBar), (["--trainer.callbacks+=TQDMProgressBar"], TQDMProgressBar)]
)
def test_command_line_shows_it_unless_given_another(arguments: list[str], kind: type, tmp_path: Path) -> None:
    words = [f"--config={CONFIG}", f"--trainer.default_root_dir={tmp_path}", "--trainer.fast_dev_run=true"]
    cli = main(["fit", *words, "--test_after_fit=false", *arguments])
    assert [type(callback) for callback in cli.trainer.callbacks if isinstance(callback, ProgressBar)] == [kind]


@pytest.mark.parametrize("config", [{"enable_progress_bar": False}, {"barebones": True}])
def test_command_line_shows_none(config: dict[str, bool]) -> None:
    assert default_bar(config, []) == []


def test_names_the_current_attack() -> None:
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
