"""The command line: precedence of settings, links from the data, help and errors."""

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

from adv_lightning import AdversarialEarlyStopping, AdversarialPictures
from adv_lightning.__main__ import run
from adv_lightning.attacks import FGSM
from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.cli.commands import COMMANDS, help_text
from adv_lightning.cli.failed_runs import failed_writes_named
from adv_lightning.module import AdversarialModule
from tests.conftest import ROOT
from tests.support.small_data import write_idx

NET = ["--model.backbone=SoftmaxRegression"]
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


def test_checkpoint_is_enough(best: str) -> None:
    figures = figures_of(f"--ckpt_path={best}")
    assert 0 <= figures["test/error"] <= figures["test/adv_error"] <= figures["test/PGD_error"] + 0.05 <= 1.05


def test_command_line_wins_over_checkpoint(best: str) -> None:
    figures = figures_of(f"--ckpt_path={best}", "--model.val_attack.eps=0")
    assert figures["test/adv_error"] == figures["test/error"]


def test_file_wins_over_checkpoint(best: str, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("model: {alpha: 0.25, val_attack: {init_args: {eps: 0.3}}}")
    words = ["validate", f"--ckpt_path={best}", "--config=more.yaml", "--model.alpha=0.75", *QUIET]
    module = main([*words, "--trainer.logger=false"]).model
    assert isinstance(module, AdversarialModule)
    assert (module.alpha, module.val_attack.eps, module.attack.eps) == (0.75, 0.3, 0.1)


def test_weights_come_from_the_checkpoint(best: str) -> None:
    module = main(["validate", f"--ckpt_path={best}", *QUIET, "--trainer.logger=false"]).model
    stored = torch.load(best, weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())


def test_files_merge_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("callbacks: {early_stopping: {patience: 3}, pictures: {samples: 2}}")
    words = ["--config=more.yaml", "--callbacks.early_stopping.min_delta=0.5", "--callbacks.attack_suite=null"]
    cli = main(["fit", DIGITS, *words, "--trainer.fast_dev_run=true", "--test_after_fit=false", *QUIET])
    stopping = next(c for c in cli.trainer.callbacks if isinstance(c, AdversarialEarlyStopping))
    assert (stopping.patience, abs(stopping.min_delta), stopping.monitor) == (3, 0.5, "val/adv_error")
    assert [c.samples for c in cli.trainer.callbacks if isinstance(c, AdversarialPictures)] == [2]
    assert "AttackSuite" not in {type(c).__name__ for c in cli.trainer.callbacks}


def test_own_callbacks_join_the_named_ones() -> None:
    words = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"]
    cli = main(["fit", DIGITS, *words, *TINY, "--test_after_fit=false"])
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert {"LearningRateMonitor", "AdversarialEarlyStopping", "AdversarialCheckpoint"} <= set(names)


# What reaches what


def test_backbone_gets_classes_and_shape(tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_checkpoint_reloads_in_a_fresh_process(best: str) -> None:
    code = (
        "from adv_lightning import AdversarialModule\n"
        f"module = AdversarialModule.load_from_checkpoint({best!r})\n"
        "print(type(module.backbone).__name__, module.attack, module.alpha)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "MaxoutMLP FGSM(eps=0.1, bounds=None) 0.5"


def test_seed_fixes_every_bit() -> None:
    def weights(*words: str) -> dict[str, Any]:
        words = ("fit", DIGITS, *TINY, "--test_after_fit=false", "--trainer.logger=false", *words)
        return copy.deepcopy(main([*words, "--trainer.enable_checkpointing=false"]).model.state_dict())

    first, second, other = weights(), weights(), weights("--seed_everything=1")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["backbone.net.linear.weight"], other["backbone.net.linear.weight"])


def test_writes_predictions(best: str, elsewhere: Path) -> None:
    main(["predict", f"--ckpt_path={best}", *QUIET])
    batches = torch.load(next(elsewhere.rglob("predictions.pt")), weights_only=True)
    probabilities = torch.cat(batches)
    assert probabilities.shape == (360, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(360))


def test_writes_nothing_without_a_logger(elsewhere: Path) -> None:
    words = ["--trainer.logger=false", "--trainer.enable_checkpointing=false"]
    main(["fit", DIGITS, *TINY, *words])
    assert not list(elsewhere.iterdir())


def test_each_run_has_a_folder(elsewhere: Path) -> None:
    for _ in range(2):
        main(["fit", DIGITS, *TINY, "--test_after_fit=false"])
    assert sorted(path.name for path in (elsewhere / "lightning_logs").iterdir()) == ["version_0", "version_1"]


# Refit


def test_refit_trains_on_all_images(finished: Path, elsewhere: Path) -> None:
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


def test_refit_without_early_stopping(elsewhere: Path) -> None:
    main(["fit", DIGITS, *TINY, "--callbacks.early_stopping=null", "--test_after_fit=false"])
    run_folder = elsewhere / "lightning_logs" / "version_0"
    best_epoch = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    cli = main(["refit", f"--run={run_folder}", "--test_after_fit=false"])
    assert cli.trainer.current_epoch == best_epoch + 1


# Help and errors


def test_help_imports_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    for words, status in ((["--help"], 0), ([], 2), (["--version"], 0), (["fitt"], 2)):
        code = (
            "import sys; from adv_lightning.__main__ import run\n"
            f"status = run({words}); print(status, 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.endswith(f"{status} False\n")
    assert run(["--version"]) == 0
    assert re.search(r"adv_lightning \d+\.\d+\.\d+\n$", capsys.readouterr().out)


def test_every_command_is_in_the_table() -> None:
    assert {*AdversarialCLI.subcommands()} == {command.name for command in COMMANDS.values() if not command.run}
    for command in COMMANDS.values():
        assert f"\n  {command.name} " in help_text()
        assert command.example in help_text()
        assert command.example.split()[0] == command.name
        assert callable(command.load()) == bool(command.run)


def test_main_names_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compar"])
    assert stop.value.code == 2
    assert re.search("'compar'.*compare", capsys.readouterr().err)


def test_main_is_the_function() -> None:
    code = "import adv_lightning.cli.main; from adv_lightning.cli import main; assert main.__name__ == 'main'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_print_config_round_trips(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", DIGITS, "--model.alpha=0.3", "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["alpha"] == 0.3
    (tmp_path / "all.yaml").write_text(printed)
    assert main(["fit", "--config=all.yaml", "--trainer.fast_dev_run=true", *QUIET]).model.alpha == 0.3


ERRORS = {
    "mistyped key": (["fit", DIGITS, "--model.alhpa=0.1"], r"AdversarialModule.*'alhpa'.*alpha"),
    "mistyped argument of a class": (["fit", DIGITS, "--model.backbone.unit=3"], r"MaxoutMLP.*'unit'.*units"),
    "mistyped callback": (["fit", DIGITS, "--callbacks.early_stoping.patience=2"], r"callbacks\.early_stopping"),
    "mistyped key of the trainer": (["fit", DIGITS, "--trainer.max_epochz=2"], r"max_epochz.*trainer\.max_epochs"),
    "mistyped key above an argument": (
        ["fit", DIGITS, "--model.atack.eps=0.1"],
        r"'model\.atack\.eps' \(did you mean model\.attack or",
    ),
    "mistyped module": (["fit", DIGITS, "--modle.alpha=1"], r"'modle\.alpha' \(did you mean model\.alpha"),
    "an optimizer's argument": (["fit", DIGITS, "--model.optimizer.learning_rate=1"], r"SGD.*accepts lr, momentum"),
    "a callback of one's own": (["fit", DIGITS, "--callbacks.mine=Timer"], r"--trainer\.callbacks\+="),
    "a word of other libraries": (["train", DIGITS], r"there is no command 'train' \(did you mean fit\?\)"),
    "unknown attack": (["fit", DIGITS, "--model.attack=FGMS"], r"FGMS.*FGSM"),
    "unknown data module": (["fit", DIGITS, "--data=MNISTDataModul"], r"did you mean MNISTDataModule"),
    "unknown command": (["fitt"], r"'fitt'.*fit"),
    "nothing said": (["fit"], r"backbone.*--config"),
    "missing configuration": (["fit", "--config=nope.yaml"], r"no file .*nope\.yaml"),
    "missing checkpoint": (["test", "--ckpt_path=nope.ckpt"], r"ckpt_path=nope\.ckpt"),
    "folder as checkpoint": (["test", f"--ckpt_path={ROOT / 'tests' / 'support'}"], r"folder.*format_1\.ckpt"),
    "not a checkpoint": (["test", f"--ckpt_path={ROOT / 'README.md'}"], r"README\.md.*checkpoint"),
    "word for eps": (["fit", DIGITS, "--model.attack.eps=abc"], r"eps='abc'.*number"),
    "negative eps": (["fit", DIGITS, "--model.attack.eps=-1"], r"eps=-1\.0.*number"),
    "alpha over 1": (["fit", DIGITS, "--model.alpha=2"], r"alpha=2\.0.*\[0, 1\]"),
    "batch size of 0": (["fit", DIGITS, "--data.batch_size=0"], r"batch_size.*0"),
    "missing data": (["fit", DIGITS, "--data=MNISTDataModule", "--data.root=nowhere"], r"no file .*nowhere.*download"),
    "refit of nothing": (["refit", "--run=nowhere"], r"nowhere.*config\.yaml"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_short(case: str, capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    words, expected = ERRORS[case]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err[:4000]
    lines = [line for line in said.splitlines() if not line.startswith(("INFO", "Seed set"))]
    assert len(lines) <= 3
    assert re.search(expected, " ".join(lines)), said
    assert not list(elsewhere.iterdir())


def test_names_a_mistyped_key_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("callbacks: {early_stoping: {patience: 3}}")
    with pytest.raises(SystemExit):
        main(["fit", DIGITS, "--config=bad.yaml"])
    assert "callbacks.early_stopping" in capsys.readouterr().err


def test_refuses_a_checkpoint_without_backbone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    module = AdversarialModule(torch.nn.Linear(3, 2), FGSM(0.1))
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(checkpoint, tmp_path / "python.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path=python.ckpt"])
    assert re.search("python.ckpt .*--model.backbone", capsys.readouterr().err)


def test_val_attack_follows_attack(best: str, tmp_path: Path) -> None:
    assert figures_of(f"--ckpt_path={best}", "--model.attack.eps=0")["test/adv_error"] == pytest.approx(
        figures_of(f"--ckpt_path={best}")["test/error"]
    )
    (tmp_path / "judge.yaml").write_text(f"ckpt_path: {best}\nmodel: {{attack: {{init_args: {{eps: 0}}}}}}")
    figures = figures_of("--config=judge.yaml")
    assert figures["test/adv_error"] == figures["test/error"]


def test_a_users_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "buggy.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, width: int = 3):\n        super().__init__()\n        raise ValueError('my own bug')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="my own bug"):
        main(["fit", DIGITS, "--model.backbone.class_path=buggy.Net"])


def test_names_the_nearest_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", f"--config={ROOT / 'configs' / 'digit.yaml'}"])
    assert "digits.yaml" in capsys.readouterr().err


def test_run_false_only_builds(elsewhere: Path) -> None:
    cli = AdversarialCLI(args=[DIGITS, *TINY, "--model.alpha=0.25"], run=False)
    assert cli.trainer.global_step == 0
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert (cli.model.alpha, cli.trainer.global_step) == (0.25, 4)


def test_prints_figures_without_attack_suite(best: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures_of(f"--ckpt_path={best}", "--callbacks.attack_suite=null")
    assert "test/adv_error" in capsys.readouterr().out


def test_a_shortened_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", DIGITS, "--trainer.max_epoch=3"])
    assert re.search(r"trainer\.max_epoch'.*trainer\.max_epochs", capsys.readouterr().err)


MISTAKES = {
    "a network for the module": (["--model=SoftmaxRegression"], "is a network. Give it as --model.backbone=Softmax"),
    "an optimizer of torch": ([*NET, "--model.optimizer=SGDD"], "no class SGDD (did you mean SGD or ASGD?)"),
    "a schedule of torch": ([*NET, "--model.lr_scheduler=CosineAnnealing"], "(did you mean CosineAnnealingLR or"),
    "a precision": (
        [*NET, "--trainer.precision=17"],
        "trainer.precision: give one of 64, 32, 16, transformer",
    ),
    "a list of callbacks": (
        [*NET, "--config=list.yaml"],
        "callbacks: expected names with settings, as in ",
    ),
    "a mistyped group": ([*NET, "--model.atack.eps=0.1"], "no key 'model.atack.eps' (did you mean model.attack or"),
    "a loss": ([*NET, "--model.loss_fn=RBFLos"], "there is no class RBFLos (did you mean RBFLoss or Loss?)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_answered_with_what_is_meant(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words, said = MISTAKES[name]
    (tmp_path / "list.yaml").write_text("callbacks: [{class_path: mypackage.Mine}]")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--data=DigitsDataModule", *words])
    assert stopped.value.code == 2
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert said in line
    assert not re.search("Namespace|typing|NoneType", line)


def test_folder_that_is_removed_in_training_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data=DigitsDataModule", *NET, "--trainer.callbacks+=tests.support.interrupted.RemoveRun"]
    words += ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=30", "--trainer.enable_progress_bar=false"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *words, f"--trainer.default_root_dir={tmp_path}"])
    assert stopped.value.code == 2
    run = tmp_path / "lightning_logs" / "version_0"
    assert f"error: {run} was removed while the run was writing to it" in capsys.readouterr().err
    assert not run.exists()


def test_missing_file_that_is_read_is_not_taken_for_a_removed_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, failed_writes_named(str(tmp_path)):
        open("/nowhere/at/all")  # noqa: SIM115
    assert raised.value.filename == "/nowhere/at/all"
