"""What a command says is what is judged, and records say under which settings a network was trained."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import yaml

from adv_lightning import FGSM, AdversarialModule, Comparison, Transferred
from adv_lightning.callbacks.monitor_key import judged_on
from adv_lightning.cli import main
from adv_lightning.evaluation.metrics_record import changing_callbacks
from adv_lightning.metrics import MistakeConfidence, WrongClassProbability
from tests.cli.test_runs import JOB, QUIET, elsewhere, fit
from tests.support.helpers import Batches, batches, mlp, quiet_trainer

__all__ = ["elsewhere"]

LAST = "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt"


@pytest.mark.parametrize("in_file", [False, True])
def test_a_given_attack_judges_also_where_it_is_the_stored_one(in_file: bool) -> None:
    fit(*JOB, "--model.attack.eps=0.1")
    judge = ["--model.val_attack=FGSM", "--model.val_attack.eps=0.1"]
    if in_file:
        Path("judge.yaml").write_text("model: {init_args: {val_attack: {class_path: FGSM, init_args: {eps: 0.1}}}}")
        judge = ["--config=judge.yaml"]
    other = "--model.attack.eps=0.3"
    Path("samples.yaml").write_text("model: {init_args: {val_attack: null, val_attack_samples: 50}}")
    samples = ["--config=samples.yaml", "--model.val_attack_every_n_epochs=1"]
    told, untold = (main(["test", LAST, *QUIET, *words, other]).model for words in (judge, samples))
    assert (told.val_attack.eps, told.attack.eps, untold.val_attack.eps) == (0.1, 0.3, 0.3)


def test_validating_on_another_split_is_warned_of() -> None:
    fit(*JOB)
    with pytest.warns(UserWarning, match="split_seed=3 differ from those of the checkpoint's training"):
        main(["validate", LAST, *QUIET, "--data.split_seed=3"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main(["validate", LAST, *QUIET])
        main(["test", LAST, *QUIET, "--data.split_seed=3"])


def test_the_score_is_of_the_file_that_examples_are_crafted_on() -> None:
    fit(*JOB)
    path = LAST.partition("=")[2]
    module = AdversarialModule(mlp(), val_attack=Transferred(path, FGSM(0.1)))
    trainer = quiet_trainer()
    first = judged_on(trainer, module)
    assert judged_on(trainer, module) == first
    held = torch.load(path, weights_only=True)
    torch.save({**held, "global_step": 1}, path)
    assert judged_on(trainer, module) != first


def test_callbacks_are_those_of_the_checkpoints_own_steps(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    files = {"config_until_step_4": 1, "config_until_step_10": 2, "config_until_step_x": 9, "config": 3}
    for name, patience in files.items():
        settings = {"callbacks": {"mine": {"class_path": "no.Such", "init_args": {"patience": patience}}}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    for step, patience in ((1, 1), (4, 1), (5, 2), (10, 2), (11, 3), (None, 3)):
        found = changing_callbacks(tmp_path / "checkpoints" / "a.ckpt", step)
        assert found is not None
        assert found["mine"]["init_args"]["patience"] == patience


@pytest.mark.parametrize("attack", [FGSM(0.1), FGSM(0.1, bounds=(0, 0.5))])
def test_a_comparison_checks_what_it_compares(attack: FGSM) -> None:
    x, y = next(iter(batches(1)))
    for wrong, message in (
        ((torch.full_like(x, torch.nan), y), "input values of a batch are NaN or infinite"),
        ((x / 100, y + 5), "labels range from"),
        ((x.abs() + 1, y), "outside the bounds"),
    ):
        if attack.bounds is None and message.startswith("outside"):
            continue
        if attack.bounds is not None and message.startswith("labels"):
            wrong = (wrong[0].abs(), wrong[1])
        comparison = Comparison({"a": AdversarialModule(mlp()), "b": AdversarialModule(mlp(seed=1))}, attack)
        with pytest.raises(ValueError, match=message):
            quiet_trainer().test(comparison, Batches(wrong), verbose=False)


@pytest.mark.parametrize("metric", [MistakeConfidence, WrongClassProbability])
def test_a_mistake_without_a_probability_is_left_out(
    metric: type[MistakeConfidence] | type[WrongClassProbability],
) -> None:
    probabilities, predicted, y = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([1, 1]), torch.tensor([0, 1])
    alone, beside = metric(), metric()
    alone.update(probabilities, predicted, y)
    nan = torch.full((3, 2), torch.nan)
    beside.update(torch.cat([probabilities, nan]), torch.cat([predicted, torch.full((3,), -1)]), torch.arange(5) % 2)
    assert alone.compute() == pytest.approx(0.75)
    assert beside.compute() == alone.compute()
