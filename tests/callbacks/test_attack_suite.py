from __future__ import annotations

import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialCheckpoint, AdversarialModule, Attack, AttackSuite, SingleStepAttack
from adv_lightning.cli import main
from adv_lightning.data.seeding import mix_seed
from tests.conftest import ROOT
from tests.helpers import Batches, Snapshot, batches, fit, mlp, quiet_trainer


def loader() -> Batches:
    return Batches(*batches(3, seed=1), *batches(1, size=5, seed=2))


def row_by_hand(net: nn.Module, name: str, attack: Attack | None, n: int = 29) -> dict[str, Any]:
    x, y = (torch.cat(parts)[:n] for parts in zip(*loader(), strict=True))
    net = copy.deepcopy(net).eval()
    x_adv = x if attack is None else attack(net, x, y, loss_fn=F.cross_entropy)
    probabilities = net(x_adv).softmax(1)
    wrong = probabilities.argmax(1) != y
    confidence = None if attack is None else pytest.approx(probabilities.amax(1)[wrong].mean().item(), abs=1e-6)
    return {
        "name": name,
        "attack": None if attack is None else attack.config(),
        "error": pytest.approx(wrong.double().mean().item(), abs=1e-6),
        "confidence_on_mistakes": confidence,
        "n": n,
    }


def judged(suite: AttackSuite, attack: Attack | None = None, **kwargs: Any) -> tuple[AdversarialModule, Any]:
    module = AdversarialModule(mlp(), attack or FGSM(0.3, bounds=(-2, 2)))
    trainer = quiet_trainer(callbacks=[suite], **kwargs)
    trainer.test(module, loader(), verbose=False)
    return module, trainer


def test_puts_pgd_beside_the_modules_own_attack() -> None:
    suite = AttackSuite()
    module, trainer = judged(suite)
    pgd = PGD(0.3, bounds=(-2, 2))
    assert suite.rows == [
        row_by_hand(module.backbone, "clean", None),
        row_by_hand(module.backbone, "FGSM", FGSM(0.3, bounds=(-2, 2))),
        row_by_hand(module.backbone, "PGD", pgd),
    ]
    assert trainer.callback_metrics["test/PGD_error"] == suite.rows[2]["error"]
    assert trainer.callback_metrics["test/adv_error"] == suite.rows[1]["error"]
    assert suite.rows[0]["error"] < suite.rows[1]["error"]


def test_named_attacks_take_the_place_of_the_default() -> None:
    suite = AttackSuite({"weak": FGSM(0.05), "strong": PGD(0.8, steps=5)})
    module, trainer = judged(suite)
    assert [row["name"] for row in suite.rows] == ["clean", "FGSM", "weak", "strong"]
    assert suite.rows[2] == row_by_hand(module.backbone, "weak", FGSM(0.05))
    assert suite.rows[3] == row_by_hand(module.backbone, "strong", PGD(0.8, steps=5))
    assert {"test/weak_error", "test/strong_error"} <= set(trainer.callback_metrics)


class Sideways(SingleStepAttack):
    """Of no class that the suite knows: pushes every value up by eps."""

    needs_grad = False

    def __init__(self, eps: Any, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps, self.bounds = eps, bounds

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + self.eps


class StrongerPGD(PGD):
    """No PGD to take for granted, although it is one."""


# Local by its name: a second FGSM at the top of a module would make the command line's short name ambiguous.
OTHER_FGSM = type("FGSM", (Sideways,), {"__qualname__": "other.<locals>.FGSM"})


@pytest.mark.parametrize(
    ("own", "added"),
    [
        (FGSM(0.3, bounds=(-2, 2)), {"PGD": PGD(0.3, bounds=(-2, 2))}),
        (PGD(0.3, steps=1), {"FGSM": FGSM(0.3), "PGD-40": PGD(0.3)}),
        (PGD(0.3, steps=39, bounds=(-2, 2)), {"FGSM": FGSM(0.3, (-2, 2)), "PGD-40": PGD(0.3, bounds=(-2, 2))}),
        (PGD(0.3, steps=40), {"FGSM": FGSM(0.3)}),
        (PGD(0.3, steps=41), {"FGSM": FGSM(0.3)}),
        (StrongerPGD(0.3, steps=41), {"FGSM": FGSM(0.3), "PGD": PGD(0.3)}),
        (Sideways(0.3, bounds=(-2, 2)), {"FGSM": FGSM(0.3, (-2, 2)), "PGD": PGD(0.3, bounds=(-2, 2))}),
        (OTHER_FGSM(0.3), {"FGSM-1": FGSM(0.3), "PGD": PGD(0.3)}),
    ],
)
def test_fgsm_and_pgd_stand_beside_any_attack_of_an_eps(own: Attack, added: dict[str, Attack]) -> None:
    suite = AttackSuite()
    module, trainer = judged(suite, own)
    assert suite.rows == [
        row_by_hand(module.backbone, "clean", None),
        row_by_hand(module.backbone, type(own).__name__, own),
        *(row_by_hand(module.backbone, name, attack) for name, attack in added.items()),
    ]
    logged = {name for name in trainer.callback_metrics if name.endswith("_error") and name != "test/adv_error"}
    assert logged == {f"test/{name}_error" for name in added}


def test_without_an_attack_the_clean_row_stands_alone_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    module = AdversarialModule(mlp(), None)
    quiet_trainer(callbacks=[suite]).test(module, loader(), verbose=False)
    assert suite.rows == [row_by_hand(module.backbone, "clean", None)]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("No attack judged the network")
    assert "--model.val_attack=FGSM --model.val_attack.eps=" in last


def test_an_attack_without_a_number_for_eps_stands_alone_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    judged(suite, Sideways(torch.full((6,), 0.1)))
    assert [row["name"] for row in suite.rows] == ["clean", "Sideways"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Sideways alone judged the network")


@pytest.mark.parametrize(("own", "attacks"), [(FGSM(0.1), None), (PGD(0.1), None), (None, {}), (None, {"a": FGSM(1)})])
def test_nothing_is_said_where_something_stands_beside_or_the_user_chose(
    own: Attack | None, attacks: dict[str, Attack] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    module = AdversarialModule(mlp(), own)
    quiet_trainer(callbacks=[AttackSuite(attacks)]).test(module, loader(), verbose=False)
    assert "judged the network" not in capsys.readouterr().out


@pytest.mark.parametrize("samples", [3, 8, 11, 29, 1000])
def test_judges_the_first_samples_only(samples: int) -> None:
    suite = AttackSuite(max_samples=samples)
    module, _ = judged(suite)
    pgd = PGD(0.3, bounds=(-2, 2))
    assert suite.rows[1]["n"] == 29
    assert suite.rows[2] == row_by_hand(module.backbone, "PGD", pgd, n=min(samples, 29))


def test_a_second_test_starts_anew() -> None:
    suite = AttackSuite()
    module, trainer = judged(suite)
    first = suite.rows
    trainer.test(module, loader(), verbose=False)
    assert suite.rows == first


def test_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3), nn.Dropout()).double()
    before = Snapshot(net)
    quiet_trainer(callbacks=[AttackSuite()]).test(AdversarialModule(net, FGSM(0.1)), loader(), verbose=False)
    before.assert_same(net)


def test_works_under_autocast() -> None:
    suite = AttackSuite()
    module = AdversarialModule(mlp().float(), FGSM(0.3))
    data = batches(2, dtype=torch.float32)
    quiet_trainer(callbacks=[suite], precision="bf16-mixed").test(module, data, verbose=False)
    with torch.autocast("cpu", torch.bfloat16):
        x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
        net = module.backbone.eval()
        error = (net(PGD(0.3)(net, x, y, loss_fn=F.cross_entropy)).argmax(1) != y).double().mean()
    assert suite.rows[2]["error"] == pytest.approx(error.item())


def test_writes_a_record_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    suite, logger = AttackSuite(), CSVLogger(tmp_path)
    judged(suite, logger=logger)
    record = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in record["test"]] == ["clean", "FGSM", "PGD"]
    assert record["test"] == json.loads(json.dumps(suite.rows))
    assert record["test"][1]["attack"]["init_args"] == {"eps": 0.3, "bounds": [-2.0, 2.0]}
    assert record["model"]["alpha"] == 0.5
    assert record["model"]["attack"]["class_path"] == "adv_lightning.attacks.fgsm.FGSM"
    assert (record["seed"], record["mode"], record["precision"]) == (7, "eval", "32-true")
    assert record["processes"] == 1
    assert record["versions"]["torch"] == version("torch")
    assert record["training"]["checkpoint"] is None
    assert list(Path(logger.log_dir).glob("*.partial")) == []


@pytest.mark.parametrize("when", ["during", "after"])
def test_the_record_knows_how_long_a_checkpoint_was_trained(when: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(tmp_path)
    checkpoint = AdversarialCheckpoint(monitor=None, dirpath=tmp_path)
    trainer = fit(module, batches(4), max_epochs=3, callbacks=[checkpoint], enable_checkpointing=True)
    if when == "after":
        trainer.save_checkpoint(path)
    trainer = quiet_trainer(callbacks=[AttackSuite(), checkpoint], enable_checkpointing=True, logger=logger)
    trainer.test(module, loader(), ckpt_path=path, verbose=False)
    record = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))
    del record["training"]["seed"]
    assert record["training"] == {
        "epochs": 3,
        "steps": 12,
        "seconds": None,
        "checkpoint": "last.ckpt",
        "callbacks": None,  # no command line left its configuration beside the checkpoint
    }


@pytest.mark.parametrize(("stored", "seed"), [({"adv_lightning_seed": 5}, 5), ({"adv_lightning_seed": None}, None)])
def test_the_records_seed_is_that_of_the_training(
    stored: dict[str, Any], seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded_seeds(stored, tmp_path, monkeypatch) == (seed, seed)


def test_a_checkpoint_that_knows_no_seed_leaves_that_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded_seeds({}, tmp_path, monkeypatch) == (7, 7)


def recorded_seeds(stored: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The seeds that a test in a process of seed 7 records of a checkpoint."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(folder)
    fit(module, batches(1)).save_checkpoint(folder / "a.ckpt")
    checkpoint = torch.load(folder / "a.ckpt", weights_only=True)
    checkpoint.pop("adv_lightning_seed", None)
    torch.save(checkpoint | stored, folder / "a.ckpt")
    trainer = quiet_trainer(callbacks=[AttackSuite({})], logger=logger)
    trainer.test(module, loader(), ckpt_path=folder / "a.ckpt", verbose=False)
    record = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))
    return record["seed"], record["training"]["seed"]


def test_without_a_logger_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = AttackSuite()
    judged(suite, logger=False)
    assert len(suite.rows) == 3
    assert list(tmp_path.rglob("*.json")) == []


def test_prints_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    judged(suite)
    shown = capsys.readouterr().out
    assert "FGSM(eps=0.3" in shown
    for row in suite.rows:
        assert f"{row['error']:.2%}" in shown


@pytest.mark.parametrize("samples", [0, -1])
def test_refuses_fewer_than_one_sample(samples: int) -> None:
    with pytest.raises(ValueError, match=f"max_samples={samples}: give at least 1, or null for all"):
        AttackSuite(max_samples=samples)


def test_judges_no_other_module() -> None:
    class Other(LightningModule):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    with pytest.raises(TypeError, match="AttackSuite works on an AdversarialModule, and this is a Other"):
        quiet_trainer(callbacks=[AttackSuite()]).test(Other(), loader(), verbose=False)


def test_rubbish_is_shown_and_counted(tmp_path: Path) -> None:
    module, logger = AdversarialModule(mlp(), FGSM(0.1)).float(), CSVLogger(tmp_path)
    batch = (torch.rand(4, 6), torch.tensor([0, 1, 2, 0]))
    suite = AttackSuite({}, rubbish_samples=250)
    (figures,) = quiet_trainer(callbacks=[suite], logger=logger).test(module, Batches(batch), verbose=False)
    chunks = [
        torch.randn(size, 6, generator=torch.Generator().manual_seed(mix_seed(0, i)))
        for i, size in enumerate((100, 100, 50))
    ]
    with torch.no_grad():
        probabilities = module.eval()(torch.cat(chunks)).softmax(1)
    taken = probabilities.amax(1) > 0.5
    assert 0 < taken.sum() < 250
    row = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))["test"][-1]
    assert (row["name"], row["n"], row["attack"]) == ("rubbish", 250, None)
    assert row["error"] == figures["test/rubbish_error"] == pytest.approx(taken.float().mean().item())
    assert row["confidence_on_mistakes"] == pytest.approx(probabilities.amax(1)[taken].mean().item(), abs=1e-5)
    assert sum(row["classes"]) == pytest.approx(1)


def test_a_negative_number_of_rubbish_is_refused() -> None:
    with pytest.raises(ValueError, match="rubbish_samples=-1: give 0 or more"):
        AttackSuite(rubbish_samples=-1)


def test_the_record_names_what_acted_in_training_and_what_was_logged(tmp_path: Path) -> None:
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs=1", "--trainer.limit_train_batches=6"]
    noise = ["--callbacks.noise.noise=SignNoise", "--callbacks.noise.noise.eps=0.1"]
    hidden = ["--callbacks.hidden.layers=[net.maxout1]"]
    cli = main(["fit", "--config", str(ROOT / "configs" / "digits.yaml"), *root, *noise, *hidden])
    record = json.loads((tmp_path / "lightning_logs" / "version_0" / "metrics.json").read_text(encoding="utf-8"))
    acted = record["training"]["callbacks"]
    assert acted["noise"]["init_args"]["noise"]["class_path"].endswith("SignNoise")
    assert not {"attack_suite", "pictures", "final_metrics"} & acted.keys()
    name = "test/activation/net.maxout1"
    assert record["logged"][name] == pytest.approx(cli.trainer.callback_metrics[name].item())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
@pytest.mark.filterwarnings("ignore:precision bf16-true holds the inputs")
def test_rubbish_is_shown_in_the_precision_of_the_network(precision: Any) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    batch = (torch.rand(4, 6), torch.tensor([0, 1, 2, 0]))
    trainer = quiet_trainer(callbacks=[AttackSuite({}, rubbish_samples=100)], precision=precision)
    (figures,) = trainer.test(module, Batches(batch), verbose=False)
    assert 0 <= figures["test/rubbish_error"] <= 1


@pytest.mark.parametrize("content", ["- a", "", "callbacks: [a, b]", "a: !!python/tuple [1]", "callbacks: {noise: 1}"])
def test_a_file_that_is_no_runs_configuration_is_not_taken_for_one(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    path = tmp_path / "models" / "best.ckpt"
    module, logger = AdversarialModule(mlp(), FGSM(0.1)), CSVLogger(tmp_path)
    fit(module, batches(1)).save_checkpoint(path, weights_only=True)
    quiet_trainer(callbacks=[AttackSuite({})], logger=logger).test(module, loader(), ckpt_path=path, verbose=False)
    record = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))
    assert record["training"]["callbacks"] is None
