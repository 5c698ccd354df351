"""compare: closed forms, white-box figures, two processes, errors.

`python -m tests.cli.test_compare FOLDER`, started once per process with the variables of torch.distributed, writes what
each process found to FOLDER/<rank>.pt.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from adv_lightning import FGSM, PGD, AdversarialModule, AttackSuite, RBFLoss
from adv_lightning.cli import main
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation.comparison import Comparison
from adv_lightning.evaluation.from_checkpoint import names_of
from adv_lightning.metrics import wilson_interval
from adv_lightning.models import ShallowRBF, class_means
from tests.conftest import ROOT
from tests.support.helpers import Batches, quiet_trainer, two_processes
from tests.support.small_data import write_idx

DIGITS = f"--config={ROOT / 'configs' / 'digits.yaml'}"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=8", "--trainer.log_every_n_steps=1"]
SHORT += ["--test_after_fit=false", "--callbacks.pictures=null"]


PGD_2 = ["--model.val_attack=PGD", "--model.val_attack.eps=0.1", "--model.val_attack.steps=2"]

# Hand-set networks: what they do under attack is a closed form


def linear(weight: Tensor, bias: float) -> AdversarialModule:
    """Two classes of a softmax, whose logits differ by weight.x + bias."""
    net = nn.Linear(len(weight), 2).double()
    net.weight.data = torch.stack([-weight, weight]) / 2
    net.bias.data = torch.tensor([-bias, bias], dtype=torch.float64) / 2
    return AdversarialModule(net, None)


def test_linear_networks_match_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    n, features, eps = 301, 20, 0.1
    weights = {name: torch.randn(features, dtype=torch.float64, generator=generator) for name in "abc"}
    weights["b"] = 0.6 * weights["a"] + 0.8 * weights["b"]  # like a, as networks of the same data are
    biases = {"a": 0.3, "b": -0.1, "c": 0.0}
    x = torch.randn(n, features, dtype=torch.float64, generator=generator)
    y = (x @ weights["a"] > 0).long()
    sign = 2 * y - 1

    comparison = Comparison({name: linear(weights[name], biases[name]) for name in "abc"}, FGSM(eps))
    loader = Batches(*zip(x.split(64), y.split(64), strict=True))
    trainer = quiet_trainer()
    trainer.test(comparison, loader, verbose=False)

    predicted: dict[tuple[str, str], Tensor] = {}
    for row in comparison.errors:
        source, judged = row["crafted_on"], row["judged"]
        moved = 0 if source == "clean" else eps * (weights[judged] * weights[source].sign()).sum()
        margin = sign * (x @ weights[judged] + biases[judged]) - moved
        wrong = margin < 0
        predicted[source, judged] = torch.where(wrong, 1 - y, y)
        assert (row["error"], row["n"]) == (wrong.sum().item() / n, n)
        assert row["interval"] == pytest.approx(wilson_interval(int(wrong.sum()), n))
        assert row["confidence_on_mistakes"] == pytest.approx(margin[wrong].abs().sigmoid().mean().item(), abs=1e-6)
        logged = trainer.callback_metrics[f"test/transfer/{source}_to_{judged}"].item()
        assert logged == pytest.approx(row["error"], abs=1e-7)
    assert len(comparison.errors) == 12

    expected = [(source, a, b) for source in "abc" for a, b in permutations("abc", 2)]
    assert [(row["crafted_on"], row["a"], row["b"]) for row in comparison.agreements] == expected
    for row in comparison.agreements:
        a, b = predicted[row["crafted_on"], row["a"]], predicted[row["crafted_on"], row["b"]]
        for among, chosen in (("all", y == y), ("a_errs", a != y), ("both_err", (a != y) & (b != y))):
            count, number = int((chosen & (a == b)).sum()), int(chosen.sum())
            assert row[among] == {
                "share": pytest.approx(count / number),
                "interval": pytest.approx(list(wilson_interval(count, number))),
                "n": number,
            }
        assert row["both_err"]["share"] == 1  # there is one wrong class


def nearest_mean(images: Tensor, labels: Tensor) -> AdversarialModule:
    """The softmax of a linear network that finds the nearest class mean."""
    means = class_means(images, labels, 10).flatten(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data, net[1].bias.data = 2 * means, -means.square().sum(dim=1)
    return AdversarialModule(net, None)


def digit_nets() -> dict[str, AdversarialModule]:
    """Nearest class means of either half of the digits, and the RBF of all: no training, and two losses."""
    data = DigitsDataModule(val_size=0)
    images, labels = data.load("train")
    images = images.float() / 16
    rbf = ShallowRBF(10, (1, 8, 8), beta=0.3)
    rbf.set_centres(class_means(images, labels, 10))
    return {
        "first.half": nearest_mean(images[::2], labels[::2]),
        "second half": nearest_mean(images[1::2], labels[1::2]),
        "rbf": AdversarialModule(rbf, None, loss_fn=RBFLoss()),
    }


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, steps=3)])
def test_diagonal_matches_attack_suite(attack: Any) -> None:
    data, nets = DigitsDataModule(batch_size=100), digit_nets()
    comparison = Comparison(nets, attack, max_samples=150)
    quiet_trainer().test(comparison, datamodule=data, verbose=False)
    found = {(row["crafted_on"], row["judged"]): row for row in comparison.errors}
    for name, net in nets.items():
        suite = AttackSuite({"same": attack}, max_samples=150)
        quiet_trainer(callbacks=[suite]).test(net, datamodule=data, verbose=False)
        row = next(row for row in suite.rows if row["name"] == "same")
        own = found[name, name]
        assert own["confidence_on_mistakes"] == row["confidence_on_mistakes"]
        assert (own["error"], own["n"]) == (pytest.approx(row["error"], abs=1e-7), 150)
        assert own["error"] > found["clean", name]["error"]


def test_a_network_agrees_with_itself() -> None:
    module = digit_nets()["rbf"]
    comparison = Comparison({"one": module, "two": module}, FGSM(0.1))
    quiet_trainer().test(comparison, datamodule=DigitsDataModule(), verbose=False)
    errors = [(row["error"], row["confidence_on_mistakes"]) for row in comparison.errors]
    assert errors[2:] == [errors[2]] * 4
    assert errors[2][0] > errors[0][0]
    for row in comparison.agreements:
        assert [row[among]["share"] for among in ("all", "a_errs", "both_err")] == [1, 1, 1]
        assert row["a_errs"]["n"] == row["both_err"]["n"] == round(errors[2][0] * 360)


def test_no_share_without_mistakes() -> None:
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    nets = {"a": linear(torch.ones(1).double(), 0), "b": linear(2 * torch.ones(1).double(), 0)}
    comparison = Comparison(nets, FGSM(0.1))
    quiet_trainer().test(comparison, Batches((x, torch.tensor([1, 0]))), verbose=False)
    assert {(row["error"], row["confidence_on_mistakes"]) for row in comparison.errors} == {(0, None)}
    for row in comparison.agreements:
        assert row["all"]["share"] == 1
        assert row["a_errs"] == row["both_err"] == {"share": None, "interval": None, "n": 0}


def test_refuses_networks_that_do_not_match() -> None:
    nets = {"a": linear(torch.ones(3).double(), 0), "b": linear(torch.ones(4).double(), 0)}
    loader = Batches((torch.zeros(2, 3, dtype=torch.float64), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"\bb\b.*\[3\]"):
        quiet_trainer().test(Comparison(nets, FGSM(0.1)), loader)
    nets["b"] = AdversarialModule(nn.Linear(3, 5).double(), None)
    with pytest.raises(ValueError, match=r"b.* 5 classes.*a.* 2"):
        quiet_trainer().test(Comparison(nets, FGSM(0.1)), loader)
    with pytest.raises(ValueError, match="at least two"):
        Comparison({"a": nets["a"]}, FGSM(0.1))
    with pytest.raises(ValueError, match="'clean'"):
        Comparison({"a": nets["a"], "clean": nets["b"]}, FGSM(0.1))
    with pytest.raises(ValueError, match="max_samples=0"):
        Comparison(nets, FGSM(0.1), max_samples=0)


def test_names_come_from_paths() -> None:
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert names_of([f"runs/{name}/{best}" for name in ("plain", "rbf")]) == ["plain", "rbf"]
    assert names_of(["x/a.ckpt", "y/b.ckpt"]) == ["a", "b"]
    several = [f"runs/{name}/version_{i}/best.ckpt" for name, i in (("a", 0), ("a", 1), ("b", 0))]
    assert names_of(several) == ["a-version_0", "a-version_1", "b-version_0"]


# The command


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Trained a little: two nets of the digits with different losses, one of two of their classes, one of 28x28."""
    root = tmp_path_factory.mktemp("nets")
    write_idx(root / "MNIST" / "raw")
    mnist = f"--config={ROOT / 'configs' / 'mnist_softmax.yaml'}"
    found = {}
    for name, words in {
        "softmax": [DIGITS],
        "sigmoid": [DIGITS, "--model.loss_fn=SigmoidLoss", *PGD_2],
        "two": [DIGITS, "--data.classes=[3,7]"],
        "large": [mnist, f"--data.root={root}", "--data.val_size=20"],
    }.items():
        cli = main(["fit", *words, *SHORT, *QUIET, f"--trainer.default_root_dir={root / name}"])
        found[name] = cli.trainer.checkpoint_callback.last_model_path
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_writes_a_full_record(checkpoints: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [checkpoints["softmax"], checkpoints["sigmoid"]]
    comparison = main(["compare", f"--checkpoints=[{','.join(paths)}]", "--max_samples=101", *QUIET])
    printed = capsys.readouterr().out
    folder = Path("lightning_logs", "version_0")
    record = json.loads((folder / "metrics.json").read_text())
    assert [(net["name"], net["checkpoint"]) for net in record["networks"]] == list(
        zip(["softmax", "sigmoid"], paths, strict=True)
    )
    assert [net["sha256"] for net in record["networks"]] == [sha256(Path(p).read_bytes()).hexdigest() for p in paths]
    assert [net["loss"] for net in record["networks"]] == ["SoftmaxLoss()", "SigmoidLoss()"]
    assert record["attack"] == FGSM(0.1).config()
    assert (record["n"], record["mode"], record["seed"]) == (101, "eval", 0)
    assert record["data"]["class_path"].endswith("DigitsDataModule")
    assert {"torch", "lightning", "adv_lightning"} <= record["versions"].keys()
    assert record["transfer"] == comparison.errors
    assert record["agreement"] == comparison.agreements
    for row in record["transfer"]:
        assert f"{100 * row['error']:.2f}" in printed
    assert "FGSM(eps=0.1, bounds=None), n = 101, eval mode" in " ".join(printed.split())
    assert all((folder / f"transfer_{name}.png").read_bytes()[:4] == b"\x89PNG" for name in ("error", "confidence"))
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["images"] == ["transfer/error", "transfer/confidence"]
    scalars = {f"test/transfer/{i}_to_{j}" for i in ("clean", "softmax", "sigmoid") for j in ("softmax", "sigmoid")}
    assert scalars <= set(events.Tags()["scalars"])

    # The configuration that is kept repeats the run.
    again = main(["compare", f"--config={folder / 'config.yaml'}"])
    assert again.errors == comparison.errors


def test_diagonal_matches_the_test_command(checkpoints: dict[str, str]) -> None:
    paths = [checkpoints["sigmoid"], checkpoints["softmax"]]
    words = [f"--checkpoints=[{','.join(paths)}]", "--names=[a,b]", "--trainer.logger=false"]
    comparison = main(["compare", *words, *QUIET])
    assert isinstance(comparison.attack, PGD)  # the val_attack of the first
    assert comparison.attack.steps == 2
    figures = main(["test", f"--ckpt_path={paths[0]}", *QUIET, "--trainer.logger=false"]).trainer.callback_metrics
    found = {(row["crafted_on"], row["judged"]): row for row in comparison.errors}
    assert found["clean", "a"]["error"] == pytest.approx(figures["test/error"].item(), abs=1e-7)
    assert found["a", "a"]["error"] == pytest.approx(figures["test/adv_error"].item(), abs=1e-7)
    assert found["a", "a"]["confidence_on_mistakes"] == figures["test/adv_confidence"].item()


def test_attack_and_data_may_be_given(checkpoints: dict[str, str], elsewhere: Path) -> None:
    (elsewhere / "two.yaml").write_text(
        f"checkpoints: [{checkpoints['softmax']}]\ndata: {{init_args: {{val_size: 51}}}}"
    )
    words = ["--attack=FGSM", "--attack.eps=0", "--data.test_part=val", f"--checkpoints+={checkpoints['sigmoid']}"]
    comparison = main(["compare", "--config=two.yaml", *words, *QUIET, "--trainer.logger=false"])
    assert comparison.errors[0]["n"] == 51
    for i in range(2):
        assert len({comparison.errors[j]["error"] for j in (i, i + 2, i + 4)}) == 1
    assert [path.name for path in elsewhere.iterdir()] == ["two.yaml"]


def test_ensemble_is_one_network(checkpoints: dict[str, str], elsewhere: Path) -> None:
    net = ["--model.backbone=CheckpointEnsemble", f"--model.backbone.checkpoints=[{checkpoints['softmax']}]"]
    attack = ["--model.attack=FGSM", "--model.attack.eps=0.1"]
    words = [*net, *attack, "--trainer.limit_train_batches=0", "--trainer.logger=false"]
    cli = main(["test", "--data=DigitsDataModule", *words, *QUIET])
    cli.trainer.save_checkpoint("ensemble.ckpt", weights_only=True)
    words = [f"--checkpoints=[{checkpoints['softmax']},ensemble.ckpt]", "--names=[one,all]", "--trainer.logger=false"]
    comparison = main(["compare", *words, *QUIET])
    # Of one member, it is that member.
    assert len({row["error"] for row in comparison.errors[2:]}) == 1
    assert {row["all"]["share"] for row in comparison.agreements} == {1}


def test_warns_of_other_training_data(checkpoints: dict[str, str]) -> None:
    words = [f"--checkpoints=[{checkpoints['two']},{checkpoints['two']}]", "--names=[a,b]", "--data.classes=[1,2]"]
    with pytest.warns(UserWarning, match=r"\(classes=\[1, 2\]\), but trained on .*a on Digits.*\[3, 7\]\), b"):
        main(["compare", *words, *QUIET, "--trainer.logger=false"])


class Malicious:
    """Runs a command when a pickle of it is loaded without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


BOTH = "--checkpoints=[{softmax},{sigmoid}]"
ERRORS: dict[str, tuple[list[str], str]] = {
    "no checkpoint": ([], r"\b0\b.*at least two"),
    "one checkpoint": (["--checkpoints=[{softmax}]"], r"\b1\b.*at least two"),
    "missing file": (["--checkpoints=[{softmax},nope.ckpt]"], r"--checkpoints: nope\.ckpt"),
    "not a checkpoint": (["--checkpoints=[{readme},{softmax}]"], r"README\.md.*checkpoint"),
    "file cut short": (["--checkpoints=[{softmax},{cut}]"], r"cut\.ckpt.*cut short"),
    "code in a file": (["--checkpoints=[{softmax},{evil}]"], r"evil\.ckpt.*safe"),
    "tensors alone": (["--checkpoints=[{softmax},{bare}]"], r"bare\.ckpt.*Lightning"),
    "module built in Python": (["--checkpoints=[{softmax},{python}]"], r"python\.ckpt.*built in Python"),
    "three names": ([BOTH, "--names=[a,b,c]"], "names.*3.*2 networks"),
    "equal names": ([BOTH, "--names=[a,a]"], "names.*a, a"),
    "file twice": (["--checkpoints=[{softmax},{softmax}]"], "name"),
    "other classes": (["--checkpoints=[{softmax},{two}]"], "two.* 2 classes.*10"),
    "other inputs": (["--checkpoints=[{softmax},{large}]"], r"large.*\[1, 8, 8\]"),
    "no attack": ([BOTH, "--attack=null"], "--attack=FGSM"),
    "unknown attack": ([BOTH, "--attack=FGMS"], "FGMS.*FGSM"),
    "mistyped key": ([BOTH, "--atack.eps=0.1"], "atack.*attack"),
    "negative eps": ([BOTH, "--attack.eps=-1"], r"eps=-1\.0"),
    "no examples": ([BOTH, "--max_samples=0"], "max_samples=0"),
}


@pytest.fixture(scope="module")
def files(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The checkpoints, and files that are not checkpoints."""
    folder = tmp_path_factory.mktemp("files")
    whole = Path(checkpoints["softmax"]).read_bytes()
    (folder / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}, "evil": Malicious()}, folder / "evil.ckpt")
    torch.save({"weight": torch.zeros(2)}, folder / "bare.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"alpha": 0.5}}, folder / "python.ckpt")
    made = {name: str(folder / f"{name}.ckpt") for name in ("cut", "evil", "bare", "python")}
    return checkpoints | made | {"readme": str(ROOT / "README.md")}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_short_and_write_nothing(
    case: str, files: dict[str, str], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = ERRORS[case]
    with pytest.raises(SystemExit) as stop:
        main(["compare", *(word.format(**files) for word in words), *QUIET])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("INFO", "Seed set"))]
    assert re.search(expected, " ".join(lines)), lines
    assert len(lines) <= 3
    assert not list(elsewhere.iterdir())


def test_help_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m adv_lightning compare --checkpoints [A.ckpt,B.ckpt,...]")
    for key in ("--names", "--attack", "--data", "--max_samples", "--trainer.accelerator"):
        assert key in said


# Two processes


def judged_by(trainer: Trainer, samples: int | None) -> dict[str, Any]:
    """What a process finds on an odd number of digits."""
    comparison = Comparison(digit_nets(), PGD(0.1, steps=2), max_samples=samples)
    trainer.test(comparison, datamodule=DigitsDataModule(val_size=51, test_part="val", batch_size=10), verbose=False)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {"errors": comparison.errors, "agreements": comparison.agreements, "logged": logged}


@pytest.mark.slow
def test_two_processes_match_one(elsewhere: Path) -> None:
    printed = two_processes("tests.cli.test_compare", elsewhere)
    for samples in (None, 7):
        alone = judged_by(quiet_trainer(), samples)
        assert alone["errors"][0]["n"] == (samples or 51)
        for rank in range(2):
            assert torch.load(f"{rank}.pt", weights_only=True)[samples] == alone
    # Lightning's logger is rank zero's: the tables are printed once.
    assert ["both err" in text for text in printed] == [True, False]


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
    results = {samples: judged_by(quiet_trainer(devices=2, strategy="ddp"), samples) for samples in (None, 7)}
    torch.save(results, Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")
