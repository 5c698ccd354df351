"""Named callbacks, as the command line and its files build them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from adv_lightning import (
    AdversarialCLI,
    ClassCentres,
    HiddenPerturbation,
    InputNoise,
    L1Penalty,
    Rotation,
    RubbishTraining,
    UniformNoise,
)
from adv_lightning.cli import main
from adv_lightning.cli.named_callbacks import NAMED, NamedCallbacks
from adv_lightning.models import class_means
from tests.conftest import ROOT

BARE = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false"]
BARE += ["--trainer.enable_checkpointing=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
BARE += ["--test_after_fit=false", "--callbacks.early_stopping=null", "--trainer.log_every_n_steps=1"]
DIGITS = ["fit", f"--config={ROOT / 'configs' / 'digits.yaml'}"]
HIDDEN = ["--callbacks.hidden.layers=[net.maxout1]", "--callbacks.hidden.rule=Rotation"]
HIDDEN += ["--callbacks.hidden.rule.angle=0.1"]

L1 = ["--callbacks.l1.coefficient=1", "--callbacks.l1.layers=[net.maxout1]"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> tuple[AdversarialCLI, dict[type, Any]]:
    cli = main([*DIGITS, *BARE, *words])
    assert cli.trainer.global_step == 2
    return cli, {type(callback): callback for callback in cli.trainer.callbacks}


def weights(cli: AdversarialCLI) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in cli.model.backbone.parameters()])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The weights after two steps of the configuration as it is."""
    return weights(run()[0])


def test_noise(plain: torch.Tensor) -> None:
    cli, callbacks = run(
        "--model.alpha=0",
        "--callbacks.noise.noise=UniformNoise",
        "--callbacks.noise.noise.eps=64/255",
        "--callbacks.noise.compare_every_n_steps=1",
    )
    noise = callbacks[InputNoise].noise
    assert isinstance(noise, UniformNoise)
    assert noise.eps == 64 / 255
    assert cli.trainer.callback_metrics["noise/fgsm_dot"] > abs(cli.trainer.callback_metrics["noise/dot"])
    assert not torch.equal(weights(cli), plain)


def test_hidden(plain: torch.Tensor) -> None:
    cli, callbacks = run(*HIDDEN, "--callbacks.hidden.relative=true", "--callbacks.hidden.perturb_input=false")
    hidden = callbacks[HiddenPerturbation]
    assert isinstance(hidden.rule, Rotation)
    assert (hidden.layers, hidden.rule.angle) == (["net.maxout1"], 0.1)
    assert (hidden.relative, hidden.perturb_input, hidden.force) == (True, False, False)
    assert cli.trainer.callback_metrics["val/activation/net.maxout1"] > 0
    assert not torch.equal(weights(cli), plain)


def test_null_switches_off(tmp_path: Path, plain: torch.Tensor) -> None:
    (tmp_path / "hidden.yaml").write_text(
        "callbacks: {hidden: {layers: [net.maxout1], rule: {class_path: FGSM, init_args: {eps: 0.1}}}}"
    )
    cli, callbacks = run("--config=hidden.yaml")
    assert callbacks[HiddenPerturbation].rule.eps == 0.1
    assert not torch.equal(weights(cli), plain)
    cli, callbacks = run("--config=hidden.yaml", "--callbacks.hidden=null")
    assert HiddenPerturbation not in callbacks
    assert torch.equal(weights(cli), plain)


def test_l1(plain: torch.Tensor) -> None:
    cli, callbacks = run("--callbacks.l1.coefficient=0.0025", "--callbacks.l1.layers=[net.maxout1,net.linear]")
    assert callbacks[L1Penalty].coefficient == 0.0025
    assert weights(cli).abs().sum() < plain.abs().sum()


def test_rubbish(plain: torch.Tensor) -> None:
    cli, callbacks = run("--callbacks.rubbish.weight=0.5", "--callbacks.rubbish.fraction=0.25")
    rubbish = callbacks[RubbishTraining]
    assert (rubbish.weight, rubbish.fraction, rubbish.std) == (0.5, 0.25, 1.0)
    assert not torch.equal(weights(cli), plain)


def test_centres() -> None:
    words = ["--model.backbone=ShallowRBF", "--model.loss_fn=RBFLoss", "--callbacks.centres=ClassCentres"]
    cli, callbacks = run(*words, "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0")
    assert ClassCentres in callbacks
    data = cli.datamodule.train_set
    means = class_means(data.images.float() / data.scale, data.labels, 10).flatten(1)
    assert torch.equal(cli.model.backbone.mu, means)


def test_names_are_unique_and_described() -> None:
    assert len({named.name for named in NAMED}) == len({named.kind for named in NAMED}) == len(NAMED)
    assert all(named.help in (NamedCallbacks.__doc__ or "") for named in NAMED)
    assert [named.name for named in NAMED if named.on] == [
        "finite_loss",
        "checkpoint",
        "pictures",
        "final_metrics",
        "attack_suite",
        "report",
    ]


def test_what_changes_training_is_known() -> None:
    changing = {named.name for named in NAMED if getattr(named.kind, "changes_training", True)}
    assert changing == {
        "max_norm",
        "momentum",
        "noise",
        "hidden",
        "l1",
        "rubbish",
        "centres",
        "early_stopping",
        "checkpoint",
    }


ERRORS = {
    "hidden": ([*HIDDEN, "--callbacks.hidden.layers=[net.maxuot1]"], r"'net.maxuot1'.*net\.maxout1"),
    "nothing hidden": ([*HIDDEN, "--callbacks.hidden.layers=[]"], r"layers=\[\]"),
    "compiled": ([*HIDDEN, "--model.compiled=true"], r"compiled.*model\.compiled=false"),
    "the last": ([*HIDDEN, "--callbacks.hidden.layers=[net.dropout2]"], r"the last hidden layer.*force=true"),
    "l1": (
        ["--callbacks.l1.coefficient=1", "--callbacks.l1.layers=[maxout1]"],
        r"'maxout1'.*net\.maxout1",
    ),
    "negative l1": (
        [*L1, "--callbacks.l1.coefficient=-1"],
        r"coefficient=-1\.0",
    ),
    "rubbish": (["--callbacks.rubbish.std=0"], r"std=0\.0"),
    "centres": (["--callbacks.centres=ClassCentres"], r"MaxoutMLP"),
    "noise": (
        ["--callbacks.noise.noise=FGSM", "--callbacks.noise.noise.eps=1"],
        r"noise\.noise: FGSM",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_short_and_leave_no_run(case: str, capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    words, expected = ERRORS[case]
    with pytest.raises(SystemExit) as stop:
        main([*DIGITS, *(word for word in BARE if "logger" not in word and "checkpointing" not in word), *words])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("INFO", "Seed set"))]
    assert len(lines) <= 3
    assert lines[0].startswith("error: ")
    assert re.search(expected, " ".join(lines)), lines
    left = [path for path in elsewhere.rglob("*") if path.is_file()]
    if case == "centres":  # which need the data, and so come after the logger
        assert all(path.name.startswith("events") for path in left)
    elif case != "the last":  # which only a pass through the network can tell
        assert left == []
