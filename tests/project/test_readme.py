"""Every command and every block of Python in README runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from adv_lightning.__main__ import run
from adv_lightning.data import DigitsDataModule
from tests.conftest import ROOT
from tests.support.helpers import Batches
from tests.support.small_data import write_cifar, write_idx, write_pictures

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(enumerate(re.findall(r"```python\n(.*?)```", README, re.DOTALL)))
COMMANDS = [
    command
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    for command in line.split(" && ")
]
PAGES = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("controls", "judging", "reliability")
}
FURTHER = [
    shlex.split(line)[3:]
    for page in PAGES.values()
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
]
OURS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m adv_lightning ")]
SHORT = {
    "fit": ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"],
    "refit": ["--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"],
}
SMALL = ["--data.val_size=4", "--data.batch_size=4", "--callbacks.attack_suite.max_samples=4"]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with the configurations and small data, and the run that the first command makes."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "configs").symlink_to(ROOT / "configs")
    write_idx(folder / "data" / "MNIST" / "raw")
    write_idx(folder / "data" / "FashionMNIST" / "raw")
    write_pictures(folder / "pictures")
    with pytest.MonkeyPatch.context() as monkeypatch:
        write_cifar(folder / "data", monkeypatch)
        monkeypatch.chdir(folder)
        assert run([*OURS[0], *SHORT["fit"], "--trainer.max_epochs=2"]) == 0
        yield folder


def test_the_two_commands_come_first_and_ci_runs_them() -> None:
    assert COMMANDS[:3] == [
        "pip install -e '.[dev]'",
        "python -m adv_lightning fit --config configs/digits.yaml",
        "python -m pytest",
    ]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(command in ci for command in (COMMANDS[1], COMMANDS[2]))
    known = ("pip install -e '.[dev]'", "python -m pytest")
    assert all(command in known or command.startswith("python -m adv_lightning ") for command in COMMANDS)


ALONE = [words for i, words in enumerate([*OURS[1:], *FURTHER]) if words not in [*OURS[1:], *FURTHER][:i]]


@pytest.mark.parametrize("words", [words for words in ALONE if "ddp" not in words], ids=" ".join)
def test_command(words: list[str], newcomer: Path) -> None:
    small = SHORT.get(words[0], [])
    if words[0] == "fit" and "configs/digits.yaml" not in words:
        small = [*small, *SMALL, *(["--data.image_size=32"] if "image_folder" in " ".join(words) else [])]
    assert run([*words, *small]) == 0


def test_several_processes(newcomer: Path) -> None:
    (words,) = (words for words in OURS if "ddp" in words)
    done = subprocess.run(
        [sys.executable, "-m", "adv_lightning", *words, *SHORT["fit"]],
        cwd=newcomer,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "PGD(" in done.stdout


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_python_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    assert "PGD(" in capsys.readouterr().out
    assert names["module"].attack.eps == 0.1


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_the_python_block_on_judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGES["judging"], re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "judging.md", "exec"), names)
    assert len(names["callbacks"][0].checks) == 7
    (report,) = tmp_path.rglob("report.html")
    assert "Are gradients masked?" in report.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_the_suites_of_the_page_on_judging_are_valid(newcomer: Path) -> None:
    suite, ensemble = re.findall(r"```yaml\n(.*?)```", PAGES["judging"], re.DOTALL)
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    (newcomer / "suite.yaml").write_text(suite.replace("other/best.ckpt", best).replace("steps: 100", "steps: 2"))
    (newcomer / "ensemble.yaml").write_text(ensemble.replace("[a/best.ckpt, b/best.ckpt]", f"[{best}, {best}]"))
    assert run(["test", "--ckpt_path", best, "--config=suite.yaml", "--callbacks.attack_suite.max_samples=4"]) == 0
    assert run(["test", "--config=ensemble.yaml", "--data=DigitsDataModule"]) == 0


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_subclass_block(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    import adv_lightning

    digits = DigitsDataModule()
    digits.setup("fit")
    loader = Batches(*({"image": x, "label": y} for x, y in islice(digits.train_dataloader(), 3)))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    module = names["Mine"](smoothing=0.3, backbone=net, attack=adv_lightning.FGSM(0.1))
    before = net[1].weight.detach().clone()
    trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, log_every_n_steps=1)
    trainer.fit(module, loader)
    assert trainer.global_step == 3
    assert not torch.equal(before, net[1].weight)


def test_method_block() -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[2], "README.md", "exec"), names)
    assert names["module"].method is names["method"]
    assert (names["module"].attack.eps, names["module"].alpha) == (0.1, 0)
    assert len(BLOCKS) == 3
