"""Every command and every block of Python in README and docs runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
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
from tests.support.small_data import SMALL, write_all

README, CONTROLS, JUDGING, RELIABILITY = (
    (ROOT / path).read_text(encoding="utf-8")
    for path in ("README.md", "docs/controls.md", "docs/judging.md", "docs/reliability.md")
)
FEW_STEPS = ["--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1"]
EVALUATE_LITTLE = [
    *("--callbacks.attack_suite.max_samples=10", "--callbacks.rubbish_test.samples=10"),
    *("--callbacks.fooling.samples=10", "--callbacks.fooling.max_draws=10"),
]


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of a page's bash blocks."""
    lines = [line for block in blocks("bash", text) for line in block.splitlines()]
    return [command for line in lines for command in line.split(" && ")]


COMMANDS = commands(README)
OURS = [
    shlex.split(command.removeprefix("python -m adv_lightning "))
    for page in (README, CONTROLS, JUDGING, RELIABILITY)
    for command in commands(page)
    if command.startswith("python -m adv_lightning ")
]
FIRST = OURS[0]


def is_config_alone(words: list[str]) -> bool:
    """Whether tests/project/test_configs.py runs the command."""
    return words[0] == "fit" and set(words[1::2]) == {"--config"}


RUN = [words for i, words in enumerate(OURS) if words not in OURS[:i] and not is_config_alone(words)]
(DDP,) = (words for words in RUN if "ddp" in words)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the configurations and small data, and the run that the first command makes."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "configs").symlink_to(ROOT / "configs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        write_all(folder, monkeypatch)
        monkeypatch.chdir(folder)
        assert run([*FIRST, *FEW_STEPS, "--trainer.max_epochs=2"]) == 0
        yield folder


def test_starts_with_what_ci_runs() -> None:
    assert COMMANDS[:3] == [
        "pip install -e '.[dev]'",
        "python -m adv_lightning fit --config configs/digits.yaml",
        "python -m pytest",
    ]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(command in ci for command in COMMANDS[1:3])
    others = [command for command in COMMANDS if not command.startswith("python -m adv_lightning ")]
    assert set(others) == {COMMANDS[0], COMMANDS[2]}


def test_names_only_configs_that_exist() -> None:
    words = [word for words in OURS for word in words]
    configs = {word for word, option in zip(words[1:], words, strict=False) if option == "--config"}
    assert [config for config in configs if not (ROOT / config).is_file()] == []


@pytest.mark.parametrize("words", [words for words in RUN if words != DDP], ids=" ".join)
def test_command(words: list[str], newcomer: Path) -> None:
    small = FEW_STEPS if words[0] in ("fit", "refit") else []
    if words[0] == "fit":
        digits = {"configs/digits.yaml", "last"} & set(words)
        small = [*small, "--trainer.max_epochs=1"] if digits else [*SMALL, "--trainer.fast_dev_run=true"]
    if "configs/image_folder_resnet18.yaml" in words:
        small = [*small, "--data.image_size=32", "--model.backbone=SmallConvNet"]  # test_configs.py trains the ResNet
    if "configs/evaluate.yaml" in words:
        small = EVALUATE_LITTLE
    assert run([*words, *small]) == 0


@pytest.mark.slow
def test_several_processes(newcomer: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adv_lightning", *DDP, *FEW_STEPS, "--trainer.max_epochs=1"],
        cwd=newcomer,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "PGD(" in done.stdout


def executed(source: str, **names: Any) -> dict[str, Any]:
    """The names that a block of Python leaves."""
    exec(compile(source, "page.md", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_python_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = executed(blocks("python", README)[0])
    assert "PGD(" in capsys.readouterr().out
    assert names["module"].attack.eps == 0.1


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_subclass_block(tmp_path: Path) -> None:
    import adv_lightning

    names = executed(blocks("python", README)[1], __name__="readme")
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
    names = executed(blocks("python", README)[2])
    assert names["module"].method is names["method"]
    assert (names["module"].attack.eps, names["module"].alpha) == (0.1, 0)
    assert len(blocks("python", README)) == 3


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_judging_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python", JUDGING)
    assert len(executed(block)["callbacks"][0].checks) == 10
    (report,) = tmp_path.rglob("report.html")
    assert "Are gradients masked?" in report.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
def test_judging_configs(newcomer: Path) -> None:
    suite, ensemble = blocks("yaml", JUDGING)
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    (newcomer / "suite.yaml").write_text(suite.replace("other/best.ckpt", best).replace("steps: 100", "steps: 2"))
    (newcomer / "ensemble.yaml").write_text(ensemble.replace("[a/best.ckpt, b/best.ckpt]", f"[{best}, {best}]"))
    assert run(["test", "--ckpt_path", best, "--config=suite.yaml", "--callbacks.attack_suite.max_samples=4"]) == 0
    assert run(["test", "--config=ensemble.yaml", "--data=DigitsDataModule"]) == 0


def test_names_only_tests_that_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"\btests/[\w/]+\.py\b", page.read_text(encoding="utf-8")))
        assert [path for path in named if not (ROOT / path).is_file()] == [], page
