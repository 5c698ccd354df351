"""The command line: what wins over what, what reaches what, what an error says."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adv_lightning.__main__ import HELP, run
from adv_lightning.attacks import FGSM
from adv_lightning.callbacks import AdversarialEarlyStopping, AdversarialPictures
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.module import AdversarialModule
from tests.conftest import ROOT
from tests.support.small_data import write_idx

DIGITS = f"--config={ROOT / 'configs' / 'digits.yaml'}"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
TINY = [*QUIET, "--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    root = tmp_path_factory.mktemp("finished")
    main(["fit", DIGITS, *TINY, f"--trainer.default_root_dir={root}", "--test_after_fit=false"])
    return root / "lightning_logs" / "version_0"


@pytest.fixture
def best(finished: Path) -> str:
    return str(finished / "checkpoints" / "best.ckpt")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures_of(*words: str) -> dict[str, float]:
    cli = main(["test", *words, *QUIET, "--trainer.logger=false"])
    return {name: value.item() for name, value in cli.trainer.callback_metrics.items()}


# What wins over what


def test_a_checkpoint_needs_nothing_else(best: str) -> None:
    figures = figures_of(f"--ckpt_path={best}")
    assert 0 <= figures["test/error"] <= figures["test/adv_error"] <= figures["test/PGD_error"] + 0.05 <= 1.05


def test_the_command_line_wins_over_the_checkpoint(best: str) -> None:
    figures = figures_of(f"--ckpt_path={best}", "--model.val_attack.eps=0")
    assert figures["test/adv_error"] == figures["test/error"]


def test_a_file_wins_over_the_checkpoint_and_the_command_line_over_both(best: str, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("model: {alpha: 0.25, val_attack: {init_args: {eps: 0.3}}}")
    words = ["validate", f"--ckpt_path={best}", "--config=more.yaml", "--model.alpha=0.75", *QUIET]
    module = main([*words, "--trainer.logger=false"]).model
    assert isinstance(module, AdversarialModule)
    assert (module.alpha, module.val_attack.eps, module.attack.eps) == (0.75, 0.3, 0.1)


def test_weights_are_the_checkpoints(best: str) -> None:
    module = main(["validate", f"--ckpt_path={best}", *QUIET, "--trainer.logger=false"]).model
    stored = torch.load(best, weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())


def test_configurations_compose_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("callbacks: {early_stopping: {patience: 3}, pictures: {samples: 2}}")
    words = ["--config=more.yaml", "--callbacks.early_stopping.min_delta=0.5", "--callbacks.attack_suite=null"]
    cli = main(["fit", DIGITS, *words, "--trainer.fast_dev_run=true", "--test_after_fit=false", *QUIET])
    stopping = next(c for c in cli.trainer.callbacks if isinstance(c, AdversarialEarlyStopping))
    assert (stopping.patience, abs(stopping.min_delta), stopping.monitor) == (3, 0.5, "val/adv_error")
    assert [c.samples for c in cli.trainer.callbacks if isinstance(c, AdversarialPictures)] == [2]
    assert "AttackSuite" not in {type(c).__name__ for c in cli.trainer.callbacks}


def test_callbacks_of_the_users_own_join_the_named_ones() -> None:
    words = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"]
    cli = main(["fit", DIGITS, *words, *TINY, "--test_after_fit=false"])
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert {"LearningRateMonitor", "AdversarialEarlyStopping", "AdversarialCheckpoint"} <= set(names)


# What reaches what


def test_number_of_classes_and_shape_reach_the_backbone(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    words = ["--data.root=.", "--data.classes=[3,7]", "--data.val_size=20", "--trainer.max_epochs=1"]
    cli = main(["fit", f"--config={ROOT / 'configs' / 'mnist_softmax.yaml'}", *words, *TINY, "--test_after_fit=false"])
    assert cli.model.backbone.linear.weight.shape == (2, 784)
    path = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    again = AdversarialModule.load_from_checkpoint(path)
    assert again.backbone.linear.weight.shape == (2, 784)


def test_eps_may_be_a_fraction() -> None:
    cli = main(["fit", DIGITS, "--model.attack.eps=8/255", "--trainer.fast_dev_run=true", *QUIET])
    assert isinstance(cli.model.attack, FGSM)
    assert cli.model.attack.eps == 8 / 255


def test_a_checkpoint_reloads_in_a_fresh_process(best: str) -> None:
    code = (
        "from adv_lightning import AdversarialModule\n"
        f"module = AdversarialModule.load_from_checkpoint({best!r})\n"
        "print(type(module.backbone).__name__, module.attack, module.alpha)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "MaxoutMLP FGSM(eps=0.1, bounds=None) 0.5"


def test_a_seed_fixes_every_bit() -> None:
    def weights(*words: str) -> dict[str, Any]:
        words = ("fit", DIGITS, *TINY, "--test_after_fit=false", "--trainer.logger=false", *words)
        return copy.deepcopy(main([*words, "--trainer.enable_checkpointing=false"]).model.state_dict())

    first, second, other = weights(), weights(), weights("--seed_everything=1")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["backbone.net.linear.weight"], other["backbone.net.linear.weight"])


def test_predictions_are_written(best: str, elsewhere: Path) -> None:
    main(["predict", f"--ckpt_path={best}", *QUIET])
    batches = torch.load(next(elsewhere.rglob("predictions.pt")), weights_only=True)
    probabilities = torch.cat(batches)
    assert probabilities.shape == (360, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(360))


def test_without_a_logger_the_folder_stays_empty(elsewhere: Path) -> None:
    words = ["--trainer.logger=false", "--trainer.enable_checkpointing=false"]
    main(["fit", DIGITS, *TINY, *words])
    assert not list(elsewhere.iterdir())


def test_runs_of_one_folder_keep_apart(elsewhere: Path) -> None:
    for _ in range(2):
        main(["fit", DIGITS, *TINY, "--test_after_fit=false"])
    assert sorted(path.name for path in (elsewhere / "lightning_logs").iterdir()) == ["version_0", "version_1"]


# Refit


def test_refit_trains_from_scratch_on_all_images_for_the_best_epochs(finished: Path, elsewhere: Path) -> None:
    state = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    best_epoch = next(value["best_epoch"] for key, value in state.items() if "EarlyStopping" in key)
    cli = main(
        ["refit", f"--run={finished}", "--trainer.limit_train_batches=1.0", f"--trainer.default_root_dir={elsewhere}"]
    )
    assert cli.trainer.current_epoch == best_epoch + 1
    assert cli.trainer.global_step == 15 * (best_epoch + 1)  # 1437 images in batches of 100
    assert len(cli.datamodule.train_set) == 1437
    saved = sorted(path.name for path in elsewhere.rglob("*.ckpt"))
    assert saved == ["last.ckpt"]


def test_refit_knows_the_best_epoch_of_a_run_without_early_stopping(elsewhere: Path) -> None:
    main(["fit", DIGITS, *TINY, "--callbacks.early_stopping=null", "--test_after_fit=false"])
    run_folder = elsewhere / "lightning_logs" / "version_0"
    best_epoch = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    cli = main(["refit", f"--run={run_folder}", "--test_after_fit=false"])
    assert cli.trainer.current_epoch == best_epoch + 1


# Help and errors


def test_top_level_help_imports_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from adv_lightning.__main__ import run; run(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == HELP + "False\n"
    assert run([]) == 2
    assert run(["--version"]) == 0
    assert re.search(r"adv_lightning \d+\.\d+\.\d+\n$", capsys.readouterr().out)


def test_help_lists_every_command() -> None:
    for command in (*AdversarialCLI.subcommands(), "refit"):
        assert re.search(rf"^  {command} ", HELP, re.MULTILINE)


def test_print_config_round_trips(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", DIGITS, "--model.alpha=0.3", "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["alpha"] == 0.3
    (tmp_path / "all.yaml").write_text(printed)
    assert main(["fit", "--config=all.yaml", "--trainer.fast_dev_run=true", *QUIET]).model.alpha == 0.3


ERRORS = {
    "a typo in a key": (["fit", DIGITS, "--model.alhpa=0.1"], r"AdversarialModule takes no argument 'alhpa'.*alpha"),
    "a typo in a class's key": (
        ["fit", DIGITS, "--model.backbone.unit=3"],
        r"MaxoutMLP takes no argument 'unit'.*units",
    ),
    "a typo in a callback": (["fit", DIGITS, "--callbacks.early_stoping.patience=2"], r"callbacks\.early_stopping"),
    "a typo in a trainer key": (["fit", DIGITS, "--trainer.max_epochz=2"], r"did you mean trainer\.max_epochs"),
    "an unknown attack": (["fit", DIGITS, "--model.attack=FGMS"], r"no class FGMS \(did you mean FGSM\?\)"),
    "an unknown data module": (["fit", DIGITS, "--data=MNISTDataModul"], r"did you mean MNISTDataModule"),
    "an unknown command": (["fitt"], r"no 'fitt' \(did you mean fit\?\)"),
    "nothing said": (["fit"], r"backbone is not given; name a configuration"),
    "a missing configuration": (["fit", "--config=nope.yaml"], r"there is no file .*nope\.yaml"),
    "a missing checkpoint": (["test", "--ckpt_path=nope.ckpt"], r"ckpt_path=nope\.ckpt: there is no such file"),
    "no checkpoint": (["test", f"--ckpt_path={ROOT / 'README.md'}"], r"this is no checkpoint"),
    "a word for eps": (["fit", DIGITS, "--model.attack.eps=abc"], r"eps='abc': give a finite number"),
    "a negative eps": (["fit", DIGITS, "--model.attack.eps=-1"], r"eps=-1\.0: give a finite number"),
    "alpha over 1": (["fit", DIGITS, "--model.alpha=2"], r"alpha=2\.0: give a number in \[0, 1\]"),
    "a batch size of 0": (["fit", DIGITS, "--data.batch_size=0"], r"batch_size must be 1 or more, got 0"),
    "missing data": (["fit", DIGITS, "--data=MNISTDataModule", "--data.root=nowhere"], r"no file .*nowhere.*download"),
    "refit of nothing": (["refit", "--run=nowhere"], r"no config\.yaml in it; give the folder of a run"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_a_few_lines_that_say_what_to_do(
    case: str, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    words, expected = ERRORS[case]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err[:4000]
    lines = [line for line in said.splitlines() if not line.startswith(("INFO", "Seed set"))]
    assert len(lines) <= 3
    assert re.search(expected, " ".join(lines)), said
    assert not list(elsewhere.iterdir())


def test_a_mistyped_file_key_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("callbacks: {early_stoping: {patience: 3}}")
    with pytest.raises(SystemExit):
        main(["fit", DIGITS, "--config=bad.yaml"])
    assert "did you mean callbacks.early_stopping?" in capsys.readouterr().err


def test_a_checkpoint_from_python_says_what_it_lacks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    module = AdversarialModule(torch.nn.Linear(3, 2), FGSM(0.1))
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(checkpoint, tmp_path / "python.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path=python.ckpt"])
    assert "backbone is not given" in capsys.readouterr().err


def test_the_attack_judges_unless_another_is_named(best: str, tmp_path: Path) -> None:
    assert figures_of(f"--ckpt_path={best}", "--model.attack.eps=0")["test/adv_error"] == pytest.approx(
        figures_of(f"--ckpt_path={best}")["test/error"]
    )
    (tmp_path / "judge.yaml").write_text(f"ckpt_path: {best}\nmodel: {{attack: {{init_args: {{eps: 0}}}}}}")
    figures = figures_of("--config=judge.yaml")
    assert figures["test/adv_error"] == figures["test/error"]


def test_a_bug_in_a_users_network_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "buggy.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, width: int = 3):\n        super().__init__()\n        raise ValueError('my own bug')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="my own bug"):
        main(["fit", DIGITS, "--model.backbone.class_path=buggy.Net"])


def test_the_nearest_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", f"--config={ROOT / 'configs' / 'digit.yaml'}"])
    assert "did you mean digits.yaml" in capsys.readouterr().err


def test_without_commands_it_builds_and_runs_nothing(elsewhere: Path) -> None:
    cli = AdversarialCLI(args=[DIGITS, *TINY, "--model.alpha=0.25"], run=False)
    assert cli.trainer.global_step == 0
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert (cli.model.alpha, cli.trainer.global_step) == (0.25, 4)


def test_figures_are_printed_without_the_attack_suite_too(best: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures_of(f"--ckpt_path={best}", "--callbacks.attack_suite=null")
    assert "test/adv_error" in capsys.readouterr().out
