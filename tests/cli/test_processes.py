"""Several processes: all launchers train alike, and all processes end when one dies."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adv_lightning.__main__ import run
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ENV = {name: value for name, value in os.environ.items() if not name.startswith("PL_")} | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
SHORT = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=2",
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=4",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--callbacks.pictures=null",
]
FIT = [sys.executable, "-m", "adv_lightning", "fit", "--config=configs/digits.yaml", *SHORT]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def start(words: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=ENV | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    """What all processes have printed; waits for the last of them."""
    try:
        return process.communicate(timeout=240)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return found


# Deaths


@pytest.mark.parametrize(
    ("rank", "where", "how"),
    [
        pytest.param(1, "train", "kill", marks=pytest.mark.slow),
        pytest.param(0, "train", "kill", marks=pytest.mark.slow),
        pytest.param(1, "train", "raise", marks=pytest.mark.slow),
        pytest.param(1, "validation", "kill", marks=pytest.mark.slow),
        pytest.param(1, "end", "raise", marks=pytest.mark.slow),
    ],
)
def test_all_processes_end_when_one_dies(rank: int, where: str, how: str, folder: Path) -> None:
    dies = [f"--trainer.callbacks.{key}={value}" for key, value in (("rank", rank), ("where", where), ("how", how))]
    process = start([*FIT, "--test_after_fit=false", "--trainer.callbacks+=tests.support.dying.Dies", *dies], folder)
    said = output(process)
    assert process.returncode != 0
    assert how == "kill" or "RuntimeError: this process ends here" in said
    found = re.search(r"^error: process \d of 2 .*--ckpt_path=(.*)$", said, re.MULTILINE)
    # Lightning, which looks every 5 s, may have been faster.
    assert found or "error: another process failed" in said or "Child process with PID" in said, said
    assert rank == 1 or found
    if found:
        assert (folder / found[1]).is_file()


@pytest.mark.slow
def test_all_end_when_the_first_dies_early(folder: Path) -> None:
    process = start(FIT, folder)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(600):
        if children.read_text():
            break
        time.sleep(0.1)
    process.kill()
    assert "All distributed processes registered" not in output(process)
    assert process.returncode == -signal.SIGKILL


# Launchers


def figures(log_dir: Path) -> str:
    (path,) = log_dir.rglob("metrics.csv")
    return path.read_text(encoding="utf-8")


def logs(name: str) -> list[str]:
    return ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={name}"]


def test_slurm_script_is_consistent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", block("slurm"), re.MULTILINE))
    words = shlex.split(block("slurm").splitlines()[-1])
    keys = dict(zip(words[6::2], words[7::2], strict=True))
    assert words[:6] == ["srun", "--kill-on-bad-exit=1", "python", "-m", "adv_lightning", "fit"]
    assert options["nodes"] == keys["--trainer.num_nodes"]
    assert options["ntasks-per-node"] == options["gpus-per-node"] == keys["--trainer.devices"]
    assert options["job-name"] not in ("bash", "interactive")
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        run([*words[5:], "--print_config"])
    assert ended.value.code == 0


@pytest.mark.slow
def test_all_launchers_give_the_same_figures(folder: Path) -> None:
    own = start([*FIT, *logs("own"), "--trainer.callbacks+=tests.support.dying.Late"], folder)
    assert own.wait(timeout=240) == 0
    assert (folder / "late").exists()
    assert "Starting with 2 processes" in output(own)
    expected = figures(folder / "own")
    assert "test/PGD_error" in expected

    words = shlex.split(block("torchrun"))
    torchrun = start([str(Path(sys.executable).with_name("torchrun")), *words[1:], *SHORT, *logs("torchrun")], folder)
    said = output(torchrun)
    assert torchrun.returncode == 0, said
    assert figures(folder / "torchrun") == expected

    words = shlex.split(block("slurm").splitlines()[-1])[3:]
    words = [sys.executable, *words, *SHORT, "--trainer.num_nodes=1", *logs("slurm")]
    job = {"JOB_ID": "4711", "JOB_NAME": "digits", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1"}
    tasks = []
    for rank in "01":
        own_place = {"PROCID": rank, "LOCALID": rank, "NODEID": "0", "NODELIST": "127.0.0.1"}
        variables = {f"SLURM_{name}": value for name, value in (job | own_place).items()}
        tasks.append(start(words, folder, **variables))
    printed = [output(task) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], printed
    assert "Starting with 2 processes" in printed[0]
    assert figures(folder / "slurm") == expected
