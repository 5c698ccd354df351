"""Runs that continue: which one, in which folder, with which settings; and simultaneous runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EMAWeightAveraging

from adv_lightning.cli import AdversarialCLI, main
from adv_lightning.cli.refit import best_epoch
from adv_lightning.cli.resume import newest
from adv_lightning.cli.runs import RunLogger, hold
from tests.conftest import ROOT
from tests.support.interrupted import weights

JOB = [
    f"--config={ROOT / 'configs' / 'digits.yaml'}",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=2",
    "--trainer.log_every_n_steps=1",
    "--model.backbone.units=10",
    "--callbacks.early_stopping.patience=9",
    "--callbacks.pictures=null",
    "--test_after_fit=false",
]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*words: str) -> AdversarialCLI:
    cli = main(["fit", *words])
    assert isinstance(cli, AdversarialCLI)
    return cli


def settings(run: Path, name: str = "config.yaml") -> Any:
    return yaml.safe_load((run / name).read_text(encoding="utf-8"))


def test_last_continues_in_the_newest_run(tmp_path: Path) -> None:
    whole = fit(*JOB, "--trainer.max_epochs=3", f"--trainer.default_root_dir={tmp_path / 'whole'}").model
    fit(*JOB)
    run = Path("lightning_logs/version_0")
    before = settings(run)
    # Only what changes is given again.
    resumed = fit("--ckpt_path=last", "--trainer.max_epochs=3")
    assert [path.name for path in Path("lightning_logs").iterdir()] == ["version_0"]
    assert resumed.trainer.global_step == 6
    assert torch.equal(weights(resumed.model), weights(whole))
    assert Path(resumed.trainer.checkpoint_callback.best_model_path) == run / "checkpoints" / "best.ckpt"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    # The previous settings are kept beside the new ones.
    assert settings(run, "config_until_step_4.yaml") == before
    assert settings(run)["trainer"]["max_epochs"] == 3
    assert settings(run)["ckpt_path"] is None  # what would train it again
    # A finished run stays unchanged, a test after it included.
    fit("--ckpt_path=last", "--test_after_fit=true")
    assert settings(run)["ckpt_path"] is None
    assert settings(run, "config_until_step_4.yaml") == before
    assert sorted(path.name for path in run.glob("config*")) == ["config.yaml", "config_until_step_4.yaml"]


def test_a_path_continues_in_a_new_folder() -> None:
    fit(*JOB)
    kept = Path("lightning_logs/version_0/checkpoints")
    names = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    branch = fit(*JOB, f"--ckpt_path={kept / 'last.ckpt'}", "--trainer.max_epochs=3", "--model.optimizer.lr=0")
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == names
    callback = branch.trainer.checkpoint_callback
    # With a learning rate of 0 nothing gets better, so the best is still that of the run it came from.
    assert Path(callback.best_model_path) == kept / "best.ckpt"
    assert [path.name for path in Path("lightning_logs/version_1/checkpoints").iterdir()] == ["last.ckpt"]


def test_a_later_start_epoch_forgets_the_best() -> None:
    fit(*JOB)
    last = "lightning_logs/version_0/checkpoints/last.ckpt"
    late = ["--callbacks.checkpoint.start_epoch=3", "--callbacks.early_stopping.start_epoch=3"]
    branch = fit(*JOB, f"--ckpt_path={last}", *late, "--trainer.max_epochs=4", "--model.optimizer.lr=0")
    best = Path("lightning_logs/version_1/checkpoints/best.ckpt")
    assert Path(branch.trainer.checkpoint_callback.best_model_path) == best
    assert torch.load(best, weights_only=True)["epoch"] == 3
    assert branch.trainer.early_stopping_callback.best_epoch == 3


def test_last_continues_in_a_moved_folder(tmp_path: Path) -> None:
    fit(*JOB)
    Path("lightning_logs").rename(tmp_path / "elsewhere")
    Path("moved").mkdir()
    (tmp_path / "elsewhere").rename("moved/lightning_logs")
    resumed = fit("--ckpt_path=last", "--trainer.max_epochs=5", "--trainer.default_root_dir=moved")
    kept = Path("moved/lightning_logs/version_0/checkpoints")
    assert Path(resumed.trainer.checkpoint_callback.best_model_path).parent == kept
    assert sorted(path.name for path in kept.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_best_of_several_kept_is_that_with_the_lowest_error() -> None:
    job = [*JOB, "--callbacks.checkpoint.save_top_k=4", "--trainer.max_epochs=4"]
    best = Path(fit(*job).trainer.checkpoint_callback.best_model_path)
    others = [path for path in best.parent.glob("best*.ckpt") if path.name != best.name]
    assert others
    for path in others:  # so that the time a file was written cannot tell
        os.utime(path, (time.time() + 9, time.time() + 9))
    os.utime(best.with_name("last.ckpt"), (time.time() + 99, time.time() + 99))
    assert newest(".", "best") == Path("lightning_logs/version_0/checkpoints", best.name)


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")
def test_a_run_that_continues_under_another_monitor_has_one_last_checkpoint() -> None:
    fit(*JOB)
    other = ["--callbacks.early_stopping.monitor=val/error", "--callbacks.checkpoint.monitor=val/error"]
    again = fit("--ckpt_path=last", *other, "--trainer.max_epochs=5")
    run = Path("lightning_logs/version_0")
    assert sorted(path.name for path in (run / "checkpoints").glob("last*")) == ["last.ckpt"]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 4
    assert best_epoch(run) == again.trainer.early_stopping_callback.best_epoch
    assert newest(".", "best") == run / "checkpoints" / Path(again.trainer.checkpoint_callback.best_model_path).name


def test_one_command_starts_and_continues_a_job() -> None:
    # What it adds to a list is added once.
    job = [*JOB, "--ckpt_path=last", "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging"]
    assert fit(*job).trainer.global_step == 4
    assert settings(Path("lightning_logs/version_0"))["ckpt_path"] is None
    for epochs in (3, 4):
        again = fit(*job, f"--trainer.max_epochs={epochs}")
        assert again.trainer.global_step == 2 * epochs
        assert sum(isinstance(each, EMAWeightAveraging) for each in again.trainer.callbacks) == 1


def test_last_does_not_fall_back_to_an_older_run() -> None:
    fit(*JOB)
    Path("lightning_logs/version_1").mkdir()
    lock = hold(Path("lightning_logs/version_1"))  # a run that was killed before its first checkpoint
    assert lock is not None
    lock.release()
    assert fit(*JOB, "--ckpt_path=last").trainer.log_dir == "./lightning_logs/version_2"


@pytest.mark.parametrize("form", ["dirpath", "init_args.dirpath"])
def test_last_is_found_in_dirpath(form: str) -> None:
    fit(*JOB, f"--callbacks.checkpoint.{form}=kept")
    assert fit("--ckpt_path=last", "--trainer.max_epochs=3").trainer.global_step == 6
    assert sorted(path.name for path in Path("kept").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_last_is_the_newest_runs_own_in_a_folder_of_several() -> None:
    fit(*JOB, "--callbacks.checkpoint.dirpath=kept")
    fit(*JOB, "--callbacks.checkpoint.dirpath=kept", "--trainer.max_epochs=1", "--seed_everything=5")
    first, second = Path("kept/last.ckpt"), Path("kept/last-v1.ckpt")
    first.touch()  # the newer file
    before = first.read_bytes()
    assert fit("--ckpt_path=last", "--trainer.max_epochs=3").trainer.global_step == 6
    assert first.read_bytes() == before
    assert torch.load(second, weights_only=True)["global_step"] == 6
    names = ["best-v1.ckpt", "best.ckpt", "last-v1.ckpt", "last.ckpt"]
    assert sorted(path.name for path in Path("kept").iterdir()) == names
    shutil.rmtree("lightning_logs/version_1/")
    assert fit("--ckpt_path=last", "--trainer.max_epochs=4").trainer.global_step == 8
    assert torch.load(first, weights_only=True)["global_step"] == 8


def test_last_with_other_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    csv = [*JOB, "--ckpt_path=last", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv"]
    assert fit(*csv).trainer.global_step == 4
    assert fit(*csv, "--trainer.max_epochs=3").trainer.global_step == 6  # in version_1, as the logger makes one anew
    with pytest.raises(SystemExit):
        main(["fit", *JOB, "--ckpt_path=last", "--trainer.logger=lightning.pytorch.loggers.WandbLogger"])
    assert "lightning.pytorch.loggers.WandbLogger" in capsys.readouterr().err


def test_unfit_settings_leave_the_run_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    fit(*JOB)
    before = settings(Path("lightning_logs/version_0"))
    with pytest.raises(SystemExit):
        fit("--ckpt_path=last", "--model.backbone.units=20", "--trainer.max_epochs=3")
    assert "the weights do not fit the network: 5 of another shape" in capsys.readouterr().err
    assert settings(Path("lightning_logs/version_0")) == before
    # The folder was released, and the run continues.
    assert fit("--ckpt_path=last", "--trainer.max_epochs=3").trainer.global_step == 6


def test_figures_of_another_attack_are_not_compared() -> None:
    fit(*JOB)
    last = "lightning_logs/version_0/checkpoints/last.ckpt"
    branch = fit(*JOB, f"--ckpt_path={last}", "--trainer.max_epochs=3", "--model.attack.eps=0.5")
    assert Path(branch.trainer.checkpoint_callback.best_model_path).parent.parent.name == "version_1"
    assert branch.trainer.early_stopping_callback.best_epoch == 2


@pytest.mark.slow
@pytest.mark.parametrize("end", ["--trainer.max_steps=3", "--trainer.callbacks+=tests.support.interrupted.StopAt"])
def test_continues_within_an_epoch(end: str, tmp_path: Path) -> None:
    steps = [*JOB, "--trainer.limit_train_batches=5", "--trainer.max_epochs=-1"]
    whole = fit(*steps, "--trainer.max_steps=9", f"--trainer.default_root_dir={tmp_path / 'whole'}").model
    cut = fit(*steps, end).trainer
    assert cut.global_step == 3
    more = ["--trainer.max_steps=9", "--trainer.max_epochs=-1", "--trainer.callbacks=null"]
    assert torch.equal(weights(fit("--ckpt_path=last", *more).model), weights(whole))


@pytest.mark.slow
@pytest.mark.parametrize("word", ["last", "best"])
def test_evaluation_takes_the_newest_run(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["test", f"--ckpt_path={word}", *QUIET])
    assert stopped.value.code == 2
    assert f"no lightning_logs/checkpoints/{word}.ckpt" in capsys.readouterr().err
    fit(*JOB)
    fit(*JOB, "--seed_everything=1")
    cli = main(["test", f"--ckpt_path={word}", *QUIET, "--trainer.logger=false"])
    assert isinstance(cli, AdversarialCLI)
    assert str(cli.trainer.ckpt_path) == f"lightning_logs/version_1/checkpoints/{word}.ckpt"


def test_refuses_a_run_that_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    fit(*JOB)
    run = Path("lightning_logs/version_0")
    lock = hold(run)
    assert lock is not None
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--ckpt_path=last", "--trainer.max_epochs=3"])
    assert stopped.value.code == 2
    assert f"{run}: another process" in capsys.readouterr().err
    lock.release()
    assert fit("--ckpt_path=last", "--trainer.max_epochs=3").trainer.global_step == 6


@pytest.mark.slow
def test_a_killed_process_releases_the_run(tmp_path: Path) -> None:
    held = "import sys, time; from adv_lightning.cli.runs import hold; lock = hold(sys.argv[1])"
    code = f"{held}; print(1, flush=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    with pytest.raises(ValueError, match="another process"):
        hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert hold(tmp_path) is not None


def test_simultaneous_runs_have_their_own_folders(tmp_path: Path) -> None:
    children = []
    gate = os.pipe()
    for _ in range(8):
        if not (pid := os.fork()):
            os.close(gate[1])
            os.read(gate[0], 1)  # all wait until the gate is closed
            os._exit(int(RunLogger(tmp_path).version))
        children.append(pid)
    os.close(gate[0])
    os.close(gate[1])
    versions = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert sorted(versions) == list(range(8))
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 8


# Settings


def rates(cli: AdversarialCLI) -> list[float]:
    return [group["lr"] for group in cli.trainer.optimizers[0].param_groups]


def test_a_given_learning_rate_wins_over_the_checkpoint() -> None:
    fit(*JOB)
    assert rates(fit("--ckpt_path=last", "--trainer.max_epochs=3")) == [0.1]
    resumed = fit("--ckpt_path=last", "--trainer.max_epochs=4", "--model.optimizer.lr=0.02")
    assert rates(resumed) == [0.02]
    assert resumed.trainer.optimizers[0].param_groups[0]["momentum"] == 0.9
    # From now on it is in the checkpoint.
    assert rates(fit("--ckpt_path=last", "--trainer.max_epochs=5")) == [0.02]


def test_a_schedule_keeps_its_place() -> None:
    schedule = ["--model.lr_scheduler=torch.optim.lr_scheduler.ExponentialLR", "--model.lr_scheduler.gamma=0.5"]
    fit(*JOB, *schedule)
    last = Path("lightning_logs/version_0/checkpoints/last.ckpt")
    faster = fit(*JOB, *schedule, f"--ckpt_path={last}", "--trainer.max_epochs=3", "--model.optimizer.lr=0.2")
    assert rates(faster) == [pytest.approx(0.2 * 0.5**3)]
    steeper = fit(*JOB, *schedule, f"--ckpt_path={last}", "--trainer.max_epochs=3", "--model.lr_scheduler.gamma=0.1")
    assert rates(steeper) == [pytest.approx(0.1 * 0.5**2 * 0.1)]


def test_a_sequence_of_schedules_takes_a_given_rate() -> None:
    schedule = ["--model.lr_scheduler=tests.support.interrupted.Constants", "--model.lr_interval=step"]
    assert rates(fit(*JOB, *schedule)) == [pytest.approx(0.1)]
    last = "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt"
    resumed = fit(*JOB, *schedule, last, "--trainer.max_epochs=4", "--model.optimizer.lr=0.02")
    assert rates(resumed) == [pytest.approx(0.02)]


def test_a_stopped_run_stays_stopped_without_more_patience() -> None:
    stopping = ["--callbacks.early_stopping.patience=1", "--model.optimizer.lr=0", "--trainer.max_epochs=9"]
    stopped = fit(*JOB, *stopping)
    assert stopped.trainer.current_epoch == 2
    again = fit("--ckpt_path=last")
    assert again.trainer.global_step == stopped.trainer.global_step
    more = fit("--ckpt_path=last", "--callbacks.early_stopping.patience=3")
    assert more.trainer.current_epoch == 4
