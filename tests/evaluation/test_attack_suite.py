from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, AttackSuite, ScaledGradient, SingleStepAttack
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation import attack_suite
from adv_lightning.evaluation.attack_pictures import fooled_first
from tests.support.helpers import Batches, Snapshot, batches, mlp, quiet_trainer


def loader() -> Batches:
    drawn = [*batches(3, seed=1), *batches(1, size=5, seed=2)]
    return Batches(*[(x.clamp(-2, 2), y) for x, y in drawn])


def pgd40(eps: float, bounds: tuple[float, float] | None = None) -> PGD:
    """Return PGD as the suite adds it."""
    return PGD(eps, step_size=eps / 10, bounds=bounds)


def row_by_hand(net: nn.Module, name: str, attack: Attack | None, n: int = 29) -> dict[str, Any]:
    x, y = (torch.cat(parts)[:n] for parts in zip(*loader(), strict=True))
    net = copy.deepcopy(net).eval()
    x_adv = x if attack is None else attack(net, x, y, loss_fn=F.cross_entropy)
    probabilities = net(x_adv).softmax(1)
    predicted = probabilities.argmax(1)
    wrong = predicted != y
    others = 1 - probabilities.gather(1, y[:, None])[:, 0]
    errors, n = int(wrong.sum()), len(y)
    return {
        "name": name,
        **({"attack": None} if attack is None else {"attack": attack.config(), **attack.threat_model().to_json()}),
        "error": errors / n,
        "interval": pytest.approx(wilson_by_hand(errors, n)),
        "confidence_on_mistakes": pytest.approx(probabilities.amax(1)[wrong].mean().item(), abs=1e-6),
        "wrong_class_probability": pytest.approx(others[wrong].mean().item(), abs=1e-6),
        "mistakes_by_class": predicted[wrong].bincount(minlength=3).tolist(),
        "n": n,
    }


def wilson_by_hand(errors: int, n: int, z: float = 1.959963984540054) -> list[float]:
    p, centre = errors / n, 1 + z**2 / n
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return [(p + z**2 / (2 * n) - half) / centre, (p + z**2 / (2 * n) + half) / centre]


def worst_by_hand(net: nn.Module, attacks: dict[str, Attack], n: int = 29) -> dict[str, Any]:
    x, y = (torch.cat(parts)[:n] for parts in zip(*loader(), strict=True))
    net = copy.deepcopy(net).eval()
    wrong = net(x).argmax(1) != y
    for attack in attacks.values():
        wrong |= net(attack(net, x, y, loss_fn=F.cross_entropy)).argmax(1) != y
    errors, n = int(wrong.sum()), len(y)
    return {
        "name": "worst case",
        "attack": None,
        "worst_of": list(attacks),
        "error": errors / n,
        "interval": pytest.approx(wilson_by_hand(errors, n)),
        "n": n,
    }


def judged(suite: AttackSuite, attack: Attack | None = None, **kwargs: Any) -> tuple[AdversarialModule, Any]:
    module = AdversarialModule(mlp(), attack or FGSM(0.3, bounds=(-2, 2)))
    trainer = quiet_trainer(callbacks=[suite], **kwargs)
    trainer.test(module, loader(), verbose=False)
    return module, trainer


def test_puts_pgd_beside_the_own_attack() -> None:
    suite = AttackSuite()
    module, trainer = judged(suite)
    pgd = pgd40(0.3, bounds=(-2, 2))
    assert suite.rows == [
        row_by_hand(module.backbone, "clean", None),
        row_by_hand(module.backbone, "FGSM", FGSM(0.3, bounds=(-2, 2))),
        row_by_hand(module.backbone, "PGD", pgd),
        worst_by_hand(module.backbone, {"FGSM": FGSM(0.3, bounds=(-2, 2)), "PGD": pgd}),
    ]
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["test/PGD_error"] == pytest.approx(suite.rows[2]["error"])
    assert logged["test/adv_error"] == pytest.approx(suite.rows[1]["error"])
    assert logged["test/worst_case_error"] == pytest.approx(suite.rows[3]["error"])
    assert suite.rows[0]["error"] < suite.rows[1]["error"]


def test_named_attacks_replace_the_defaults() -> None:
    suite = AttackSuite({"weak": FGSM(0.05), "strong": PGD(0.8, steps=5)})
    module, trainer = judged(suite)
    assert [row["name"] for row in suite.rows] == ["clean", "FGSM", "weak", "strong", "worst case"]
    assert suite.rows[2] == row_by_hand(module.backbone, "weak", FGSM(0.05))
    assert suite.rows[3] == row_by_hand(module.backbone, "strong", PGD(0.8, steps=5))
    assert {"test/weak_error", "test/strong_error"} <= set(trainer.callback_metrics)


class Sideways(SingleStepAttack):
    """A user's own attack: adds eps to every value."""

    needs_grad = False

    def __init__(self, eps: Any, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.eps, self.bounds = eps, bounds

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + self.eps


class OwnSign(Sideways):
    """A user's own FGSM."""

    needs_grad = True

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return value + self.eps * grad.sign()


class StrongerPGD(PGD):
    """A user's own subclass, which may be weaker than PGD."""


# Local by its name: with a second FGSM at the top of a module, the command line's short name would be ambiguous.
OTHER_FGSM = type("FGSM", (Sideways,), {"__qualname__": "other.<locals>.FGSM"})


@pytest.mark.parametrize(
    ("own", "added"),
    [
        (FGSM(0.3, bounds=(-2, 2)), {"PGD": pgd40(0.3, bounds=(-2, 2))}),
        (PGD(0.3, steps=1), {"FGSM": FGSM(0.3), "PGD-40": pgd40(0.3)}),
        (PGD(0.3, steps=39, bounds=(-2, 2)), {"FGSM": FGSM(0.3, (-2, 2)), "PGD-40": pgd40(0.3, bounds=(-2, 2))}),
        (PGD(0.3, steps=40), {"FGSM": FGSM(0.3)}),
        (PGD(0.3, steps=41), {"FGSM": FGSM(0.3)}),
        (StrongerPGD(0.3, steps=41), {"FGSM": FGSM(0.3), "PGD": pgd40(0.3)}),
        (Sideways(0.3, bounds=(-2, 2)), {"FGSM": FGSM(0.3, (-2, 2)), "PGD": pgd40(0.3, bounds=(-2, 2))}),
        (OTHER_FGSM(0.3), {"FGSM-1": FGSM(0.3), "PGD": pgd40(0.3)}),
    ],
)
def test_fgsm_and_pgd_stand_beside_any_attack_with_eps(own: Attack, added: dict[str, Attack]) -> None:
    suite = AttackSuite()
    module, trainer = judged(suite, own)
    assert suite.rows == [
        row_by_hand(module.backbone, "clean", None),
        row_by_hand(module.backbone, type(own).__name__, own),
        *(row_by_hand(module.backbone, name, attack) for name, attack in added.items()),
        worst_by_hand(module.backbone, {type(own).__name__: own} | added),
    ]
    logged = {name for name in trainer.callback_metrics if name.endswith("_error") and name != "test/adv_error"}
    assert logged == {f"test/{name}_error" for name in (*added, "worst_case")}


def test_without_an_attack_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    module = AdversarialModule(mlp(), None)
    quiet_trainer(callbacks=[suite]).test(module, loader(), verbose=False)
    assert suite.rows == [row_by_hand(module.backbone, "clean", None)]
    last = capsys.readouterr().out.splitlines()[-1]
    assert "No attack" in last
    assert "--model.val_attack=FGSM --model.val_attack.eps=" in last


def test_no_defaults_stand_beside_another_norm() -> None:
    suite = AttackSuite(masking=True)
    judged(suite, ScaledGradient(0.3))
    assert [row["name"] for row in suite.rows] == ["clean", "ScaledGradient"]
    ran = [check.name for check in suite.checks if check.outcome != "not run"]
    assert ran == ["label leaking", "zero gradients", "same input twice", "dead pixels"]


def test_without_a_numeric_eps_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    judged(suite, Sideways(torch.full((6,), 0.1)))
    assert [row["name"] for row in suite.rows] == ["clean", "Sideways"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert "Sideways" in last
    assert "callbacks.attack_suite.attacks" in last


@pytest.mark.parametrize(("own", "attacks"), [(FGSM(0.1), None), (PGD(0.1), None), (None, {}), (None, {"a": FGSM(1)})])
def test_otherwise_no_line_is_printed(
    own: Attack | None, attacks: dict[str, Attack] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    module = AdversarialModule(mlp(), own)
    quiet_trainer(callbacks=[AttackSuite(attacks)]).test(module, loader(), verbose=False)
    assert "judged the network" not in capsys.readouterr().out


@pytest.mark.parametrize("samples", [3, 8, 11, 29, 1000])
def test_judges_the_first_samples_only(samples: int) -> None:
    suite = AttackSuite(max_samples=samples)
    module, _ = judged(suite)
    pgd = pgd40(0.3, bounds=(-2, 2))
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


def test_prints_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    judged(suite)
    shown = capsys.readouterr().out
    assert "FGSM(eps=0.3" in shown
    for row in suite.rows:
        assert f"{100 * row['error']:.2f} [{100 * row['interval'][0]:.2f}, " in shown


@pytest.mark.parametrize("samples", [0, -1])
def test_refuses_fewer_than_one_sample(samples: int) -> None:
    with pytest.raises(ValueError, match=f"max_samples={samples}.*at least 1"):
        AttackSuite(max_samples=samples)


def test_judges_no_other_module() -> None:
    class Other(LightningModule):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    with pytest.raises(TypeError, match=r"AttackSuite.*AdversarialModule.*Other"):
        quiet_trainer(callbacks=[AttackSuite()]).test(Other(), loader(), verbose=False)


def test_worst_case_counts_every_attacks_errors() -> None:
    suite = AttackSuite({"up": Sideways(1.0), "down": Sideways(-1.0)})
    module, _ = judged(suite, FGSM(0.05))
    attacks = {"FGSM": FGSM(0.05), "up": Sideways(1.0), "down": Sideways(-1.0)}
    assert suite.rows[-1] == worst_by_hand(module.backbone, attacks)
    assert suite.rows[-1]["error"] > max(row["error"] for row in suite.rows[:-1])


def test_worst_case_is_of_the_first_samples() -> None:
    suite = AttackSuite({"up": Sideways(1.0)}, max_samples=11)
    module, _ = judged(suite)
    attacks = {"FGSM": FGSM(0.3, bounds=(-2, 2)), "up": Sideways(1.0)}
    assert suite.rows[-1] == worst_by_hand(module.backbone, attacks, n=11)


def test_fgsm_and_pgd_at_a_list_of_eps() -> None:
    suite = AttackSuite(eps=["8/255", 0.5], max_samples=11)
    module, _ = judged(suite)
    attacks = {
        "PGD": pgd40(0.3, bounds=(-2, 2)),
        "FGSM 0.03137": FGSM(8 / 255, (-2, 2)),
        "PGD 0.03137": pgd40(8 / 255, bounds=(-2, 2)),
        "FGSM 0.5": FGSM(0.5, (-2, 2)),
        "PGD 0.5": pgd40(0.5, bounds=(-2, 2)),
    }
    assert suite.rows[2:-1] == [row_by_hand(module.backbone, name, attack, 11) for name, attack in attacks.items()]


@pytest.mark.parametrize("samples", [None, 11])
def test_judges_no_attack_twice(samples: int | None) -> None:
    suite = AttackSuite(eps=[0.3], max_samples=samples)
    judged(suite)
    # With fewer samples FGSM is there a second time, on the same examples as PGD.
    again = [] if samples is None else ["FGSM 0.3"]
    assert [row["name"] for row in suite.rows] == ["clean", "FGSM", "PGD", *again, "worst case"]


@pytest.mark.parametrize("eps", [[-0.1], ["a"], [0.1, float("nan")]])
def test_refuses_bad_eps(eps: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"eps=.*finite number >= 0"):
        AttackSuite(eps=eps)


def test_judges_in_validate_but_not_in_fit(capsys: pytest.CaptureFixture[str]) -> None:
    suite = AttackSuite()
    module = AdversarialModule(mlp(), FGSM(0.3, bounds=(-2, 2)))
    trainer = quiet_trainer(callbacks=[suite], limit_train_batches=1)
    trainer.fit(module, loader(), loader())
    assert suite.rows == []
    assert "PGD(" not in capsys.readouterr().out
    trainer.validate(module, loader(), verbose=False)
    assert suite.rows[2] == row_by_hand(module.backbone, "PGD", pgd40(0.3, bounds=(-2, 2)))
    assert "val/PGD_error" in trainer.callback_metrics
    assert "Validation, model in eval mode" in capsys.readouterr().out


def test_judges_a_module_with_its_own_test_step() -> None:
    class Silent(AdversarialModule):
        def test_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            super().test_step(batch, batch_idx)

    suite, module = AttackSuite(), Silent(mlp(), FGSM(0.3))
    quiet_trainer(callbacks=[suite]).test(module, loader(), verbose=False)
    assert suite.rows[1] == row_by_hand(module.backbone, "FGSM", FGSM(0.3))


class Rounded(nn.Module):
    """Quantises its input, so that all gradients are correct, zero and useless."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 4).round() / 4)


class Saturated(nn.Module):
    """Multiplies the logits until the softmax's gradient underflows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.net(x)


@pytest.fixture(scope="module")
def trained() -> dict[str, AdversarialModule]:
    """Small networks on digits, trained plainly and adversarially."""
    kinds: dict[str, Attack | None] = {"plain": None, "FGSM": FGSM(0.1), "PGD": PGD(0.1, 0.025, steps=5)}
    return {name: on_digits(attack) for name, attack in kinds.items()}


def on_digits(attack: Attack | None, seed: int = 0) -> AdversarialModule:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    module = AdversarialModule(net, attack, val_attack=FGSM(0.1))
    quiet_trainer(max_epochs=8, limit_val_batches=0).fit(module, datamodule=DigitsDataModule(batch_size=50))
    return module


def verdict_on(net: nn.Module, own: Attack | None = None, n: int = 180) -> tuple[str, AttackSuite]:
    suite = AttackSuite(masking=True)
    module = AdversarialModule(net, own or FGSM(0.1))
    trainer = quiet_trainer(callbacks=[suite], limit_test_batches=1)
    trainer.test(module, datamodule=DigitsDataModule(batch_size=n), verbose=False)
    assert suite.section is not None
    assert suite.section.verdict is not None
    return suite.section.verdict, suite


@pytest.mark.filterwarnings("ignore:.*gradient is zero")
@pytest.mark.parametrize("mask", [Rounded, Saturated])
def test_masked_gradients_are_flagged(mask: type[nn.Module], trained: dict[str, AdversarialModule]) -> None:
    said, suite = verdict_on(mask(trained["plain"].backbone))
    assert said.startswith("Masked gradients")
    assert {check.name: check.outcome for check in suite.checks}["zero gradients"] == "masked"


@pytest.mark.parametrize("kind", ["plain", "FGSM", "PGD"])
def test_ordinary_gradients_are_not_flagged(kind: str, trained: dict[str, AdversarialModule]) -> None:
    said, suite = verdict_on(trained[kind].backbone)
    assert said.startswith("No sign of masked gradients in 10 checks")
    assert {check.outcome for check in suite.checks} == {"passed"}


@pytest.mark.filterwarnings("ignore:.*gradient is zero")
def test_a_users_own_attack_is_checked_like_fgsm(trained: dict[str, AdversarialModule]) -> None:
    for net in (trained["FGSM"].backbone, Rounded(trained["plain"].backbone)):
        said, suite = verdict_on(net, OwnSign(0.1), 60)
        own, fgsm = (next(row for row in suite.rows if row["name"] == name) for name in ("OwnSign", "FGSM"))
        assert own == fgsm | {"name": "OwnSign", "attack": OwnSign(0.1).config()}
        like, fgsms = verdict_on(net, n=60)
        assert said == like
        assert {c.name: c.outcome for c in suite.checks} == {c.name: c.outcome for c in fgsms.checks}


def test_checks_compare_the_same_examples(
    trained: dict[str, AdversarialModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    suite = AttackSuite(masking=True, max_samples=100)
    checks = attack_suite.masking_checks
    monkeypatch.setattr(
        attack_suite,
        "masking_checks",
        lambda rows, *others, **known: seen.extend(rows) or checks(rows, *others, **known),
    )
    module = AdversarialModule(trained["plain"].backbone, FGSM(0.1))
    quiet_trainer(callbacks=[suite]).test(module, datamodule=DigitsDataModule(), verbose=False)
    assert {row["n"] for row in seen} == {100}
    assert seen[0]["name"] == "clean"
    assert FGSM(0.1).config() in [row["attack"] for row in seen]
    assert [row["n"] for row in suite.rows[:2]] == [360, 360]


def test_pictures_can_be_drawn(trained: dict[str, AdversarialModule]) -> None:
    _, suite = verdict_on(trained["plain"].backbone)
    assert suite.section is not None
    pictures = {picture.name: picture.draw() for picture in suite.section.pictures}
    names = ["examples under FGSM", "examples under PGD", "error against eps", "confidence", "mistakes by class"]
    assert list(pictures) == names
    # The curve has the values of the rows.
    rows = {row["attack"]["init_args"]["eps"]: row["error"] for row in suite.rows if row["name"].startswith("FGSM")}
    line = pictures["error against eps"].axes[0].lines[0]
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == rows | {0.0: suite.rows[0]["error"]}


def test_an_attack_may_have_the_own_attacks_name() -> None:
    suite = AttackSuite({"FGSM": FGSM(0.05), "PGD 0.5": FGSM(0.07)}, eps=[0.5])
    module, trainer = judged(suite)
    assert suite.rows[1] == row_by_hand(module.backbone, "own FGSM", FGSM(0.3, bounds=(-2, 2)))
    assert suite.rows[2] == row_by_hand(module.backbone, "FGSM", FGSM(0.05))
    assert suite.rows[3] == row_by_hand(module.backbone, "PGD 0.5", FGSM(0.07))
    assert suite.rows[5] == row_by_hand(module.backbone, "PGD 0.5 (added)", pgd40(0.5, bounds=(-2, 2)))
    assert trainer.callback_metrics["test/FGSM_error"].item() == pytest.approx(suite.rows[2]["error"])


@pytest.mark.parametrize("name", ["clean", "worst case", "worst_case", "adv", "rubbish", ""])
def test_refuses_reserved_names(name: str) -> None:
    with pytest.raises(ValueError, match=f"attacks.*'{name}'"):
        AttackSuite({name: FGSM(0.1)})


def test_worst_case_excludes_other_eps() -> None:
    suite = AttackSuite(eps=[0.9], masking=True)
    module, _ = judged(suite)
    attacks = {"FGSM": FGSM(0.3, bounds=(-2, 2)), "PGD": pgd40(0.3, bounds=(-2, 2))}
    worst = next(row for row in suite.rows if row["name"] == "worst case")
    assert worst == worst_by_hand(module.backbone, attacks)
    assert max(row["error"] for row in suite.rows) > worst["error"]


@pytest.mark.parametrize(("samples", "n"), [(None, 5), (3, 3), (20, 5)])
def test_validation_uses_at_most_the_own_attacks_examples(samples: int | None, n: int) -> None:
    suite = AttackSuite(max_samples=samples)
    module = AdversarialModule(mlp(), FGSM(0.3), val_attack_samples=5)
    quiet_trainer(callbacks=[suite]).validate(module, loader(), verbose=False)
    found = [(row["name"], row["n"]) for row in suite.rows]
    assert found == [("clean", 29), ("FGSM", 5), ("PGD", n), ("worst case", n)]
    assert suite.rows[2] == row_by_hand(module.backbone, "PGD", pgd40(0.3), n)
    assert suite.rows[3] == worst_by_hand(module.backbone, {"FGSM": FGSM(0.3), "PGD": pgd40(0.3)}, n)


@pytest.mark.parametrize(("bounds", "ran"), [(None, False), ((-9.0, 9.0), True)])
def test_large_eps_needs_a_known_range(bounds: tuple[float, float] | None, ran: bool) -> None:
    suite = AttackSuite(masking=True)
    judged(suite, FGSM(0.3, bounds))
    outcome = {check.name: check.outcome for check in suite.checks}["large eps"]
    assert (outcome != "not run") is ran
    large = 9 if ran else 0.5
    assert pgd40(large, bounds=bounds).config() in [row["attack"] for row in suite.rows]


def test_table_and_keys_have_the_users_names() -> None:
    suite = AttackSuite({"many steps": PGD(0.3, steps=3), "PGD-3": PGD(0.4, steps=3), "PGD mine": PGD(0.5, steps=3)})
    _, trainer = judged(suite)
    assert suite.section is not None
    heads = [row[0] for row in suite.section.tables[0].rows]
    assert heads[2].startswith("many steps: PGD(eps=0.3")
    assert heads[3].startswith("PGD(eps=0.4")
    assert heads[4].startswith("PGD mine: PGD(eps=0.5")
    assert {"test/many_steps_error", "test/PGD-3_error"} <= set(trainer.callback_metrics)


def test_fooled_examples_come_first() -> None:
    fooled = torch.tensor([False, True, False, True, False, False, True, False])
    assert fooled_first(fooled).tolist() == [1, 3, 6, 0, 2, 4]


def test_names_with_one_key_are_kept_apart() -> None:
    with pytest.raises(ValueError, match=r"attacks.*'a b'"):
        AttackSuite({"a b": FGSM(0.1), "a_b": FGSM(0.2)})
    suite = AttackSuite({"FGSM": FGSM(0.05), "own FGSM": FGSM(0.07)}, eps=[0.12345, 0.12346])
    module, _ = judged(suite)
    rows = {row["name"]: row for row in suite.rows}
    assert rows["own own FGSM"] == row_by_hand(module.backbone, "own own FGSM", FGSM(0.3, bounds=(-2, 2)))
    assert rows["own FGSM"] == row_by_hand(module.backbone, "own FGSM", FGSM(0.07))
    assert {"FGSM 0.12345", "FGSM 0.12346"} <= rows.keys()


def test_pixel_range_is_that_of_each_attack() -> None:
    suite = AttackSuite({"no range": PGD(0.5)}, masking=True)
    judged(suite, FGSM(0.02, bounds=(-9.0, 9.0)))  # inputs from N(0, 1)
    words = {check.name: check.words for check in suite.checks}["large eps"]
    assert "eps=9" in words
    suite = AttackSuite({"range": PGD(9.0, bounds=(-9.0, 9.0))}, masking=True)
    judged(suite, FGSM(0.02))
    assert "eps=9" in {check.name: check.words for check in suite.checks}["large eps"]


def test_checks_and_curves_use_the_same_clean_examples() -> None:
    suite = AttackSuite(max_samples=11, eps=[0.1, 0.2])
    module, _ = judged(suite)
    assert suite._rows_of_same_examples()[0] == row_by_hand(module.backbone, "clean", None, 11)
