from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, LogisticLoss, MemberAttack, RBFLoss, SigmoidLoss
from adv_lightning.attacks import AutoAttack, Ball, FoolboxAttack, TorchAttack
from adv_lightning.attacks.description import build
from adv_lightning.attacks.external import auto_attack
from adv_lightning.attacks.external.adapter import UnitModel
from adv_lightning.models import Ensemble
from tests.conftest import ROOT
from tests.support.helpers import Snapshot, mlp

pytest.importorskip("torchattacks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # foolbox imports what scipy deprecates
    pytest.importorskip("foolbox")


@pytest.fixture(autouse=True)
def _few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save seconds of AutoAttack; a test checks its own numbers."""
    monkeypatch.setattr(auto_attack, "_NUMBERS", {"steps": 4, "n_queries": 30})


def data(n: int = 12, features: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, features, generator=generator, dtype=torch.float64), torch.arange(n) % classes


def images(n: int = 10, size: int = 8, classes: int = 5) -> tuple[nn.Module, Tensor, Tensor]:
    """A network and images that it classifies correctly."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(size**2, 16), nn.Tanh(), nn.Linear(16, classes)).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 1, size, size, generator=generator)
    return net, x, net(x).argmax(dim=1)


def pgd_of(library: str, bounds: tuple[float, float] | None, steps: int) -> Attack:
    """PGD of eps 0.2 in steps of 0.05, from x."""
    if library == "foolbox":
        return FoolboxAttack(
            "LinfPGD", 0.2, bounds, arguments={"abs_stepsize": 0.05, "steps": steps, "random_start": False}
        )
    return TorchAttack("PGD", bounds, arguments={"eps": 0.2, "alpha": 0.05, "steps": steps, "random_start": False})


@pytest.mark.parametrize("bounds", [None, (-4, 4), (-3.75, 12)])
def test_fgsm_equals_ours(bounds: tuple[float, float] | None) -> None:
    net, (x, y) = mlp().eval(), data(200)
    ours = FGSM(0.25, bounds)(net, x, y, loss_fn=F.cross_entropy)
    for theirs in (FoolboxAttack("FGSM", "1/4", bounds), TorchAttack("FGSM", bounds, arguments={"eps": "1/4"})):
        found = theirs(net, x, y, loss_fn=F.cross_entropy)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, ours, rtol=0, atol=1e-6)
    assert (ours - x).abs().min() == pytest.approx(0.25)


@pytest.mark.parametrize("library", ["foolbox", "torchattacks"])
@pytest.mark.parametrize("bounds", [None, (-4, 4)])
def test_pgd_equals_ours(library: str, bounds: tuple[float, float] | None) -> None:
    net, (x, y) = mlp().eval(), data(200)
    ours = PGD(0.2, 0.05, 7, random_start=False, bounds=bounds)(net, x, y, loss_fn=F.cross_entropy)
    found = pgd_of(library, bounds, 7)(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(found, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("library", ["foolbox", "torchattacks"])
def test_single_logit(library: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    line, (x, y) = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1)).double(), data(100, classes=2)
    ours = PGD(0.2, 0.05, 7, random_start=False)(lambda x: line(x).view(shape), x, y, loss_fn=LogisticLoss())
    found = pgd_of(library, None, 7)(lambda x: line(x).view(shape), x, y, loss_fn=LogisticLoss())
    torch.testing.assert_close(found, ours, rtol=0, atol=1e-6)
    assert (ours - x).abs().max() == pytest.approx(0.2)


@pytest.mark.parametrize("loss_fn", [SigmoidLoss(), RBFLoss()], ids=str)
def test_they_increase_the_loss_of_a_softmax(loss_fn: nn.Module) -> None:
    net, (x, y) = nn.Sequential(mlp(), nn.LogSigmoid()), data(200)
    found = pgd_of("foolbox", None, 7)(net, x, y, loss_fn=loss_fn)
    softmax, own = (PGD(0.2, 0.05, 7, random_start=False)(net, x, y, loss_fn=j) for j in (F.cross_entropy, loss_fn))
    torch.testing.assert_close(found, softmax, rtol=0, atol=1e-6)
    assert (own - softmax).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(), (6,), (3, 2), (3, 2, 1), (1, 3, 2, 1)])
def test_inputs_of_every_shape(shape: tuple[int, ...]) -> None:
    features = math.prod(shape)
    net, (x, y) = mlp(features).eval(), data(features=features)
    expected = FGSM(0.1)(net, x, y, loss_fn=F.cross_entropy).view(-1, *shape)

    def shaped(x: Tensor) -> Tensor:
        assert x.shape[1:] == shape
        return net(x.view(len(x), features))

    for attack in (FoolboxAttack("FGSM", 0.1), TorchAttack("FGSM", arguments={"eps": 0.1})):
        found = attack(shaped, x.view(-1, *shape), y, loss_fn=F.cross_entropy)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


L2 = {"norm": "L2", "eps": 0.5}
BALLS = [
    (TorchAttack("MIFGSM", arguments={"eps": 0.1, "alpha": 0.02}), 0.1, math.inf),
    (TorchAttack("PIFGSMPP", arguments={"max_epsilon": "1/10"}), 0.1, math.inf),
    (TorchAttack("APGD", (0, 1), arguments={"eps": 0.1}), 0.1, math.inf),
    (TorchAttack("APGD", arguments=L2), 0.5, 2),
    (TorchAttack("PGDL2", arguments={"eps": 0.5, "alpha": 0.2}), 0.5, 2),
    (TorchAttack("FAB", arguments=L2 | {"n_classes": 5}), 0.5, 2),
    (TorchAttack("Square", (0, 1), arguments=L2 | {"n_queries": 100}), 0.5, 2),
    (TorchAttack("Square", arguments={"eps": 0.1, "n_queries": 100}), 0.1, math.inf),
    (FoolboxAttack("L2PGD", 0.5), 0.5, 2),
    (FoolboxAttack("L1PGD", 2, (0, 1)), 2, 1),
    (FoolboxAttack("LinfDeepFoolAttack", 0.1), 0.1, math.inf),
    (FoolboxAttack("L2CarliniWagnerAttack", 0.5, arguments={"steps": 20, "binary_search_steps": 3}), 0.5, 2),
    (FoolboxAttack("InversionAttack", 0.1, (0, 1), arguments={"distance": "linf"}), 0.1, math.inf),
    (AutoAttack(0.5, norm="L2"), 0.5, 2),
    (AutoAttack(0.1, version="plus"), 0.1, math.inf),
    (AutoAttack(0.1, version="rand", bounds=(0, 1)), 0.1, math.inf),
]


@pytest.mark.parametrize(("attack", "eps", "p"), BALLS, ids=lambda value: str(value)[:60])
def test_stays_in_the_ball_and_the_bounds(
    attack: TorchAttack, eps: float, p: float, capsys: pytest.CaptureFixture[str]
) -> None:
    net, x, y = images()
    if "PIFGSM" in str(attack):
        x = x.expand(-1, 3, -1, -1)
        net = nn.Sequential(_FirstChannel(), net)
    found = attack(net, x, y, loss_fn=F.cross_entropy)
    assert found.shape == x.shape
    assert attack.ball() == Ball(p, eps, attack.bounds)
    size = torch.linalg.vector_norm((found - x).flatten(1), ord=p, dim=1)
    assert size.max() <= eps * (1 + 1e-5)
    assert size.max() > 0.5 * eps
    if attack.bounds is None:
        assert found.min() < 0
    else:
        assert found.min() >= 0
        assert found.max() <= 1
    assert capsys.readouterr() == ("", "")


class _FirstChannel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


@pytest.mark.parametrize(
    "attack",
    [
        TorchAttack("PGD", arguments={"eps": 1, "alpha": 1}),
        TorchAttack("PGDL2", arguments={"eps": 3, "alpha": 3}),
        TorchAttack("FAB", arguments={"norm": "L2", "eps": 40, "n_classes": 5}),
    ],
)
def test_rounding_stays_in_the_ball(attack: TorchAttack) -> None:
    net, x, y = images()
    net, x = nn.Sequential(net.double()), x.double() * 255
    net.register_forward_pre_hook(lambda module, args: (args[0] / 255,))
    found = attack(net, x, y, loss_fn=F.cross_entropy)
    assert found.dtype == torch.float64
    ball = attack.ball()
    assert ball is not None
    size = torch.linalg.vector_norm((found - x).flatten(1), ord=ball.norm, dim=1)
    assert size.max() <= ball.eps * (1 + 1e-12)
    assert size.max() > 0.1 * ball.eps


def test_rounding_stays_in_the_bounds() -> None:
    net, (x, y) = mlp(), data()
    low, high = -0.1, 0.2
    assert low + (high - low) > high
    found = FoolboxAttack("FGSM", 1, (low, high))(net, x.clamp(low, high), y, loss_fn=F.cross_entropy)
    assert (found.min(), found.max()) == (low, high)


def test_hides_the_libraries_deprecation_warnings() -> None:
    net, x, y = images()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        TorchAttack("SparseFool", (0, 1), arguments={"steps": 1})(net, x, y, loss_fn=F.cross_entropy)
    assert seen == []


def test_single_logit_becomes_two_of_the_same_probability() -> None:
    torch.manual_seed(0)
    line, x = nn.Linear(6, 1), torch.rand(5, 6)
    logits = UnitModel(line, x, 0, 1)(x.view(5, 1, 1, 6))
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1:], line(x).sigmoid())


DRAWING = [
    lambda seed: TorchAttack("PGD", seed=seed, arguments={"eps": 0.1, "alpha": 0.001, "steps": 100}),
    lambda seed: TorchAttack("Square", seed=seed, arguments={"eps": 0.05, "n_queries": 5}),  # has a seed of its own
    lambda seed: TorchAttack("Pixle", (0, 1), seed=seed, arguments={"restarts": 2}),  # draws from numpy
    lambda seed: FoolboxAttack("LinfPGD", 0.1, seed=seed, arguments={"abs_stepsize": 0.001, "steps": 100}),
]


@pytest.mark.parametrize("make", DRAWING)
def test_only_the_seed_decides_the_draws(make: Callable[[int], Attack]) -> None:
    net, x, y = images()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = make(0)(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    torch.manual_seed(4)
    np.random.seed(4)  # noqa: NPY002
    assert torch.equal(make(0)(net, x, y, loss_fn=F.cross_entropy), first)
    assert not torch.equal(make(1)(net, x, y, loss_fn=F.cross_entropy), first)


def test_train_mode_draws_anew() -> None:
    net, x, y = images()
    net.train()
    torch.manual_seed(3)
    first, second = (DRAWING[0](0)(net, x, y, loss_fn=F.cross_entropy) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(DRAWING[0](0)(net, x, y, loss_fn=F.cross_entropy), first)


@pytest.mark.parametrize("attack", [pgd_of("foolbox", None, 4), pgd_of("torchattacks", None, 4), AutoAttack(0.1)])
def test_restores_everything_after_an_error(attack: Attack) -> None:
    net, x, y = images()
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), net).train()
    model[1].eval()
    model.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("on purpose")))
    before, state, drawn = Snapshot(model), torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    model.training = False
    before.modes[""] = False
    with pytest.raises(RuntimeError, match="on purpose"):
        attack(model, x, y, loss_fn=F.cross_entropy)
    before.assert_same(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == drawn  # noqa: NPY002
    assert torch.is_grad_enabled()


def test_small_gradients_survive_half_precision() -> None:
    torch.manual_seed(0)
    half = nn.Linear(64, 5)
    nn.init.normal_(half.weight, std=1e-6)
    half, x, y = half.half(), torch.rand(32, 64).half(), torch.arange(32) % 5
    weights = half.weight.detach().double()
    exact = (half(x).double().softmax(1) - F.one_hot(y, 5)) @ weights
    naive = x.clone().requires_grad_()
    F.cross_entropy(half(naive), y).backward()
    assert (naive.grad == 0).double().mean() > 0.3
    clear = exact.abs() > exact.abs().median()
    for attack in (FoolboxAttack("FGSM", 0.25), TorchAttack("FGSM", arguments={"eps": 0.25})):
        found = attack(half, x, y, loss_fn=F.cross_entropy)
        assert found.dtype == torch.float16
        assert torch.equal((found - x).sign()[clear].double(), exact.sign()[clear])


def test_pixels_without_a_finite_gradient_stay() -> None:
    x = torch.tensor([[0.3, -0.7, 4.0], [0.1, -0.0, 2.0]])

    def net(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], (x[:, 1].abs() * 0) ** 0.5 + x[:, 2] * 0], dim=1)

    for attack in (FoolboxAttack("FGSM", 0.25), TorchAttack("FGSM", arguments={"eps": 0.25})):
        found = attack(net, x, torch.tensor([0, 1]), loss_fn=F.cross_entropy)
        assert torch.equal(found[:, 1:], x[:, 1:])
        torch.testing.assert_close(found[:, 0], torch.tensor([0.05, 0.35]))


def test_nan_from_a_library_changes_nothing() -> None:
    net, x, y = images()
    net[1].weight.data.zero_()
    attack = FoolboxAttack("VirtualAdversarialAttack", 0.1, arguments={"steps": 3})  # divides by the gradient
    assert torch.equal(attack(net, x, y, loss_fn=F.cross_entropy), x)


@pytest.mark.parametrize("attack", [TorchAttack("CW", (0, 1), arguments={"steps": 3}), pgd_of("foolbox", None, 4)])
def test_no_gradient_reaches_a_parameter(attack: Attack) -> None:
    net, x, y = images()
    attack(lambda x: net(x), x, y, loss_fn=F.cross_entropy)
    assert [p.grad for p in net.parameters()] == [None] * 4


def test_attacks_a_module_and_a_member() -> None:
    net, x, y = images()
    module = AdversarialModule(net, FGSM(0.1)).eval()
    for attack in (pgd_of("torchattacks", None, 4), pgd_of("foolbox", None, 4), AutoAttack(0.5)):
        with torch.inference_mode():
            found = attack(module, x.clone(), y.clone(), loss_fn=module.loss)
            assert torch.equal(found, attack(net, x, y, loss_fn=F.cross_entropy))
    ensemble, attack = Ensemble([net, images(classes=5)[0]]).eval(), pgd_of("foolbox", None, 4)
    assert torch.equal(
        MemberAttack(attack, 1)(ensemble, x, y, loss_fn=F.cross_entropy),
        attack(ensemble.members[1], x, y, loss_fn=F.cross_entropy),
    )


def test_eps_of_zero_changes_nothing() -> None:
    net, x, y = images()
    for attack in (AutoAttack(0), FoolboxAttack("L2PGD", 0), TorchAttack("PGD", arguments={"eps": 0})):
        assert torch.equal(attack(net, x * 0 + 1, y, loss_fn=F.cross_entropy), x * 0 + 1)


# AutoAttack


NUMBERS = dict(auto_attack._NUMBERS)


@pytest.mark.parametrize("classes", [4, 10, 100])
def test_auto_attack_has_the_papers_numbers(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_attack, "_NUMBERS", NUMBERS)
    ce, targeted, fab, square = AutoAttack(0.1)._members(mlp(), classes, 0.1, 0)
    assert [type(each).__name__ for each in (ce, targeted, fab, square)] == ["APGD", "APGDT", "FAB", "Square"]
    assert (ce.loss, ce.steps, ce.n_restarts) == ("ce", 100, 1)
    assert (targeted.steps, targeted.n_restarts, targeted.n_target_classes) == (100, 1, min(classes, 10) - 1)
    assert (fab.steps, fab.n_restarts, fab.n_target_classes, fab.multi_targeted) == (100, 1, min(classes, 10) - 1, True)
    assert (square.n_queries, square.p_init, square.n_restarts) == (5000, 0.8, 1)


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_auto_attack_equals_torchattacks_with_equal_numbers(version: Any) -> None:
    library = pytest.importorskip("torchattacks")
    net, x, _ = images(40, classes=4)
    for parameter in net.parameters():
        parameter.data.mul_(2)
    y = net(x).argmax(dim=1)
    theirs = library.AutoAttack(net, norm="Linf", eps=0.06, version=version, n_classes=4, seed=3)
    for member in theirs._autoattack.attacks:
        member.steps, member.n_queries = 4, 30
    with torch.random.fork_rng():
        expected = theirs(x, y)
    found = AutoAttack(0.06, version=version, bounds=(0, 1), seed=3)(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    wrong = net(found).argmax(dim=1) != y
    assert 0 < wrong.sum() < 40
    alone = TorchAttack("APGD", (0, 1), 3, {"eps": 0.06, "steps": 4})(net, x, y, loss_fn=F.cross_entropy)
    if version == "standard":
        assert (wrong | (net(alone).argmax(dim=1) == y)).all()
    assert torch.equal(found[~wrong], x[~wrong])


@pytest.mark.parametrize("rows", [slice(None), slice(0, 1)], ids=["batch", "batch of 1"])
def test_auto_attack_leaves_mistakes_unchanged(rows: slice) -> None:
    net, x, y = images()
    x, y = x[rows], y[rows]
    assert torch.equal(AutoAttack(0.5)(net, x, (y + 1) % 5, loss_fn=F.cross_entropy), x)
    mixed = y.clone()
    mixed[0] = (y[0] + 1) % 5
    found = AutoAttack(0.5)(net, x, mixed, loss_fn=F.cross_entropy)
    assert torch.equal(found[0], x[0])
    assert (net(found).argmax(dim=1) != mixed).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_auto_attack_of_a_batch_of_1_and_without_success(norm: Any) -> None:
    net, x, y = images()
    found = AutoAttack(20, norm)(net, x[:1], y[:1], loss_fn=F.cross_entropy)
    assert (net(found).argmax(dim=1) != y[:1]).all()
    assert torch.equal(AutoAttack(1e-6, norm)(net, x, y, loss_fn=F.cross_entropy), x)
    assert torch.equal(AutoAttack(1e-6, norm)(net, x[:1], y[:1], loss_fn=F.cross_entropy), x[:1])


@pytest.mark.parametrize(("version", "classes", "least"), [("standard", 3, 4), ("plus", 2, 4), ("rand", 2, 3)])
def test_auto_attack_needs_enough_classes(version: Any, classes: int, least: int) -> None:
    net, x, y = images(classes=classes)
    with pytest.raises(ValueError, match=f"version='{version}'.*{least} classes.*has {classes}: use PGD"):
        AutoAttack(0.1, version=version)(net, x, y, loss_fn=F.cross_entropy)
    least_net, x, y = images(classes=least)
    AutoAttack(0.1, version=version)(least_net, x, y, loss_fn=F.cross_entropy)


def test_auto_attack_in_l2_needs_large_images() -> None:
    net, (x, y) = mlp(classes=5), data(classes=5)
    with pytest.raises(ValueError, match=r"L2.*5 x 5.*\[1, 6\].*norm='Linf'"):
        AutoAttack(0.1, "L2")(net, x, y, loss_fn=F.cross_entropy)
    AutoAttack(0.1)(net.float().eval(), x.float(), y, loss_fn=F.cross_entropy)


# Names, descriptions, refusals

DESCRIBED = [
    AutoAttack("8/255", "L2", "rand", (0, 1), 5),
    TorchAttack("PGD", None, 3, {"eps": "8/255", "alpha": "2/255", "random_start": False}),
    FoolboxAttack("InversionAttack", "8/255", (-1, 1), 3, {"distance": "linf"}),
    FoolboxAttack("LinfPGD", "8/255", None, 3, {"abs_stepsize": "2/255"}),
]


@pytest.mark.parametrize("attack", DESCRIBED, ids=lambda attack: type(attack).__name__)
def test_description_survives_yaml_and_json(attack: Attack) -> None:
    config = yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(attack.config()))))
    assert build(config, Attack).config() == attack.config()
    assert "0.0313725" in str(config)
    net, x, y = images()
    first, second = (each(net, x, y, loss_fn=F.cross_entropy) for each in (attack, build(config, Attack)))
    assert torch.equal(first, second)


REFUSED: list[tuple[Callable[[], Attack], str]] = [
    (lambda: TorchAttack("pgd"), "torchattacks has no attack 'pgd': did you mean PGD"),
    (lambda: TorchAttack("FGMS"), "no attack 'FGMS': did you mean .*FGSM"),
    (lambda: TorchAttack("zzzzzz"), "no attack 'zzzzzz': it has APGD, APGDT, "),
    (lambda: TorchAttack("AutoAttack"), "torchattacks has no attack 'AutoAttack'"),
    (lambda: TorchAttack("PGD", arguments={"eps": 1, "step": 3}), "PGD has no argument 'step': did you mean steps"),
    (lambda: TorchAttack("PGD", arguments={"eps": 1, "seed": 3}), "PGD has no argument 'seed'"),
    (lambda: TorchAttack("VANILA", arguments={"eps": 3}), "VANILA has no argument 'eps': it has none"),
    (lambda: TorchAttack("PGD"), "PGD needs eps: give it in arguments"),
    (lambda: TorchAttack("PIFGSM", (0, 1)), "PIFGSM needs max_epsilon: give it in arguments"),
    (lambda: TorchAttack("PGD", arguments={"eps": "8/0"}), "eps='8/0'"),
    (lambda: TorchAttack("APGD", arguments={"eps": 1, "norm": "linf"}), "APGD has no norm 'linf': did you mean Linf"),
    (lambda: TorchAttack("CW"), r"CW has no eps.*: give bounds, such as \(0, 1\)"),
    (lambda: TorchAttack("CW", (1, 0)), "bounds="),
    (lambda: FoolboxAttack("LinfPDG", 0.1), "foolbox has no attack 'LinfPDG': did you mean .*LinfPGD"),
    (lambda: FoolboxAttack("SpatialAttack", 0.1), "foolbox has no attack 'SpatialAttack'"),  # of no distance
    (lambda: FoolboxAttack("PGD", -1), "eps=-1"),
    (lambda: FoolboxAttack("PGD", 0.1, arguments={"stepsize": 1}), "PGD has no argument 'stepsize': did you mean"),
    (lambda: FoolboxAttack("InversionAttack", 0.1, arguments={"distance": "linv"}), "no distance 'linv': did you mean"),
    (lambda: FoolboxAttack("L0FMNAttack", 0.1), "L0FMNAttack measures in L0"),
    (lambda: AutoAttack(math.nan), "eps=nan"),
    (lambda: AutoAttack(0.1, "linf"), "norm='linf': give one of Linf, L2"),  # type: ignore[arg-type]
    (lambda: AutoAttack(0.1, version="fast"), "version='fast': give one of standard, plus, rand"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "named"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refuses_unknown_names(make: Callable[[], Attack], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("make", [lambda: TorchAttack("PGD"), lambda: FoolboxAttack("PGD", 0.1), lambda: AutoAttack(1)])
def test_names_what_to_install(make: Callable[[], Attack], monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("torchattacks", "foolbox"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"(torchattacks|foolbox).*pip install 'adv_lightning\[attacks\]'"):
        make()


@pytest.mark.parametrize("attack", [FoolboxAttack("FGSM", 0.1, (0, 1)), AutoAttack(0.1, bounds=(0, 1))])
def test_refuses_inputs_outside_the_bounds(attack: Attack) -> None:
    net, x, y = images()
    with pytest.raises(ValueError, match=r"-1\.\d+ to 1\.\d+, outside bounds=\(0.0, 1.0\)"):
        attack(net, (x - 0.5) * 4, y, loss_fn=F.cross_entropy)


def test_refuses_logits_of_another_shape() -> None:
    net, x, y = images()
    with pytest.raises(ValueError, match=r"logits of shape \[10, 5, 1\].*\[B, K\]"):
        FoolboxAttack("FGSM", 0.1)(lambda x: net(x).unsqueeze(2), x, y, loss_fn=F.cross_entropy)


def test_command_line_names_what_to_install(tmp_path: Path) -> None:
    # In a new process: this one has imported the libraries already.
    words = ["test", "--config", ROOT / "configs" / "digits.yaml", "--config", ROOT / "configs" / "autoattack.yaml"]
    code = "import sys; sys.modules['torchattacks'] = None; from adv_lightning.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "pip install 'adv_lightning[attacks]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
