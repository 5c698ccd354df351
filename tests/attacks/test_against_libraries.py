"""FGSM and PGD equal those of other libraries, sample by sample in float64, without a random start."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD
from adv_lightning.attacks import input_gradient
from adv_lightning.data import DigitsDataModule, MNISTDataModule
from adv_lightning.models import MaxoutMLP

Bounds = tuple[float, float] | None
Case = tuple[nn.Module, Tensor, Tensor]
EPS, STEP, STEPS = 0.25, 0.06, 10
CLEAR = 1e-12
"""Two correct gradients smaller than this may differ in sign."""


def library(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the libraries at import
        return pytest.importorskip(name)


def torchattacks(net: nn.Module, x: Tensor, y: Tensor, steps: int, bounds: Bounds) -> Tensor:
    attacks = library("torchattacks")
    attack = attacks.FGSM(net, EPS) if steps == 0 else attacks.PGD(net, EPS, STEP, steps, random_start=False)
    return attack(x, y)


def foolbox(net: nn.Module, x: Tensor, y: Tensor, steps: int, bounds: Bounds) -> Tensor:
    attacks = library("foolbox").attacks
    model = library("foolbox").PyTorchModel(net, bounds=bounds, device="cpu")
    attack = attacks.FGSM() if steps == 0 else attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=False)
    return attack(model, x, y, epsilons=EPS)[1]


def art(net: nn.Module, x: Tensor, y: Tensor, steps: int, bounds: Bounds) -> Tensor:
    evasion = library("art.attacks.evasion")
    model = library("art.estimators.classification").PyTorchClassifier(
        net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=bounds, device_type="cpu"
    )
    kwargs = {"eps": EPS, "batch_size": len(x)}
    if steps == 0:
        attack = evasion.FastGradientMethod(model, **kwargs)
    else:
        attack = evasion.ProjectedGradientDescent(model, eps_step=STEP, max_iter=steps, verbose=False, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fast_gradient", "projected_gradient_descent.projected_gradient_descent_pytorch"):
            patch.setattr(importlib.import_module(f"art.attacks.evasion.{name}"), "ART_NUMPY_DTYPE", np.float64)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


@pytest.fixture(scope="module")
def digits() -> Case:
    """A network trained on digits, and 300 digits that it has not seen."""
    data = DigitsDataModule()
    (x, y), (x_test, y_test) = data.load("train"), data.load("test")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    return _trained(net, _pixels(x), y), _pixels(x_test[:300]), y_test[:300]


@pytest.fixture(scope="module")
def mnist(mnist_root: Path) -> Case:
    """A maxout network trained a little on MNIST, and 100 images that it has not seen."""
    data = MNISTDataModule(root=str(mnist_root))
    (x, y), (x_test, y_test) = data.load("train"), data.load("test")
    torch.manual_seed(0)
    net = MaxoutMLP(units=60, dropout=0, input_dropout=0).double()
    return _trained(net, _pixels(x[:500]), y[:500]), _pixels(x_test[:100]), y_test[:100]


def _pixels(x: Tensor) -> Tensor:
    return x.double() / x.max()


def _trained(net: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval()


@pytest.mark.parametrize(
    ("theirs", "bounds"),
    [(torchattacks, (0, 1)), (foolbox, (0, 1)), (art, (0, 1)), (art, None)],
    ids=["torchattacks", "foolbox", "ART", "ART unclipped"],
)
@pytest.mark.parametrize("steps", [0, STEPS], ids=["FGSM", "PGD"])
@pytest.mark.parametrize("case", ["digits", "mnist"])
def test_equals_theirs(
    case: str, steps: int, theirs: Callable[..., Tensor], bounds: Bounds, request: pytest.FixtureRequest
) -> None:
    net, x, y = request.getfixturevalue(case)
    attack = FGSM(EPS, bounds) if steps == 0 else PGD(EPS, STEP, steps, random_start=False, bounds=bounds)
    seen: list[Tensor] = []
    with net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone())):
        ours = attack(net, x, y, loss_fn=F.cross_entropy)
    assert len(seen) == max(1, steps)
    sizes = [input_gradient(net, each, y, loss_fn=F.cross_entropy).grad.abs().flatten(1).amin(dim=1) for each in seen]
    clear = torch.stack(sizes).amin(dim=0) > CLEAR
    print(f"{case}, {attack}, {theirs.__name__}: {(~clear).double().mean():.2%} of {len(x)} left out")
    assert (~clear).double().mean() <= 0.05
    found = theirs(net, x, y, steps, bounds)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[clear], ours[clear], rtol=0, atol=1e-6)
    assert (net(ours).argmax(dim=1) != y).double().mean() > (net(x).argmax(dim=1) != y).double().mean() + 0.3
    assert (ours.min() < 0) == (bounds is None)
