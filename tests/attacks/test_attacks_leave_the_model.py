"""What holds for every attack: the model is unchanged, errors are clear, and the description rebuilds the attack."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import (
    FGSM,
    PGD,
    Attack,
    GaussianNoise,
    Rotation,
    ScaledGradient,
    SignNoise,
    TargetedFGSM,
    UniformNoise,
)
from adv_lightning.attacks import FoolboxAttack, TorchAttack
from adv_lightning.attacks.description import build
from adv_lightning.attacks.model_mode import eval_mode, kept_buffers
from tests.support.helpers import Snapshot

CLIMBING = [
    FGSM(0.1),
    PGD(0.1, steps=3),
    PGD(0.1, steps=2, restarts=2),
    ScaledGradient(0.1),
    ScaledGradient(1000, "none", differentiable=True),
    Rotation(0.1),
    Rotation(0.1, differentiable=True),
    TargetedFGSM(0.1, 1),
]
# They increase a loss of their own.
EXTERNAL: list[Attack] = []
if find_spec("torchattacks") is not None:
    EXTERNAL += [TorchAttack("PGD", arguments={"eps": "8/255", "alpha": "4/255", "steps": 2})]
if find_spec("foolbox") is not None:
    EXTERNAL += [FoolboxAttack("LinfPGD", "8/255", (0, 1), 5, {"abs_stepsize": "4/255", "steps": 2})]
ATTACKS = [*CLIMBING, *EXTERNAL, SignNoise(0.1), UniformNoise(0.1), GaussianNoise(0.1)]
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=str)
climbing = pytest.mark.parametrize("attack", CLIMBING, ids=str)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 8),
        nn.BatchNorm1d(8), nn.Linear(8, 3),
    )  # fmt: skip


def images(n: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(n, 1, 6, 6, generator=generator), torch.arange(n) % 3


@attacks
def test_buffers_modes_and_grads_stay(attack: Attack) -> None:
    contexts = (torch.enable_grad, torch.no_grad, torch.inference_mode)
    for mode, grads, context in product(("train", "eval", "mixed"), (False, True), contexts):
        model, (x, y) = net(), images()
        if mode == "eval":
            model.eval()
        elif mode == "mixed":
            model[1].eval()
            model[3].eval()
            model.training = False
        model[5].bias.requires_grad_(False)
        for p in list(model.parameters())[::2] if grads else ():
            p.grad = torch.randn_like(p)
        before, x_before = Snapshot(model), x.clone()
        with context():
            x_adv = attack(model, x, y, loss_fn=F.cross_entropy)
        before.assert_same(model)
        assert torch.equal(x, x_before), (mode, grads, context)
        assert not torch.equal(x_adv, x), (mode, grads, context)
        assert not x_adv.requires_grad, (mode, grads, context)


@climbing
def test_restores_everything_after_an_error(attack: Attack) -> None:
    model, (x, y) = net(), images()
    before = Snapshot(model)

    def loss_fn(logits: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        attack(model, x, y, loss_fn=loss_fn)
    before.assert_same(model)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("mode", [eval_mode, kept_buffers])
def test_contexts_restore_after_an_error(mode: Callable[..., AbstractContextManager[None]]) -> None:
    model = net()
    model[1].eval()
    before = Snapshot(model)
    with mode(model):
        model(images()[0])
        with pytest.raises(AssertionError):
            before.assert_same(model)
    before.assert_same(model)
    context = mode(model)
    context.__enter__()
    assert context.__exit__(RuntimeError, RuntimeError("on purpose"), None) is not True
    before.assert_same(model)


def test_batch_norm_in_train_mode_uses_the_batch() -> None:
    model, (x, y) = net(), images()
    model[3].eval()
    twin, leaf = copy.deepcopy(model), x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(twin(leaf), y), leaf)
    assert torch.equal(FGSM(0.1)(model, x, y, loss_fn=F.cross_entropy), x + 0.1 * grad.sign())
    (other,) = torch.autograd.grad(F.cross_entropy(twin.eval()(leaf), y), leaf)
    assert not torch.equal(grad.sign(), other.sign())


@attacks
def test_inputs_from_inference_mode_give_the_same(attack: Attack) -> None:
    model, (x, y) = net().eval(), images()
    expected = attack(model, x, y, loss_fn=F.cross_entropy)
    with torch.inference_mode():
        found = attack(model, x.clone(), y.clone(), loss_fn=F.cross_entropy)
    assert torch.equal(found, expected)


@attacks
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_autocast_caches_do_not_leak(attack: Attack, context: type) -> None:
    model, (x, y) = net().eval(), images()
    with torch.autocast("cpu", torch.bfloat16):
        expected = attack(model, x, y, loss_fn=F.cross_entropy)
    with context(), torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
        found = attack(model, x, y, loss_fn=F.cross_entropy)
        assert torch.equal(model(x), logits)
    assert torch.equal(found, expected)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        attack(model, x, y, loss_fn=F.cross_entropy)
        with torch.enable_grad():
            # The weights that the attack cached must not be used afterwards.
            F.cross_entropy(model(x), y).backward()
    assert all(p.grad is not None for p in model.parameters())


@attacks
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_refuses_integer_inputs(attack: Attack, dtype: torch.dtype) -> None:
    x, y = images()
    with pytest.raises(ValueError, match=str(dtype)):
        attack(net(), (x * 255).to(dtype), y, loss_fn=F.cross_entropy)


@pytest.mark.parametrize("attack", [*CLIMBING, *EXTERNAL], ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_refuses_a_model_without_gradient(attack: Attack, frozen: bool) -> None:
    model, (x, y) = net().requires_grad_(not frozen), images()
    with pytest.raises(ValueError, match=r"does not depend on the perturbed value differentiably.*\.detach\(\)"):
        attack(lambda x: model(x.detach()), x, y, loss_fn=F.cross_entropy)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM("8/255"),
        FGSM(0.25, (0, 1)),
        PGD(0.25),
        PGD(0.05, "2/255", 7, False, (-1, 1), 5),
        PGD("4/255", "2/255", 3, seed=5, restarts=2),
        *EXTERNAL,
        ScaledGradient("1/2", "none", (0, 1), True),
        Rotation(0.3, True),
        TargetedFGSM("8/255", 2, (0, 1)),
        SignNoise("8/255", (0, 1), 5),
        UniformNoise("8/255", (0, 1), 5),
        GaussianNoise("8/255", (0, 1), 5),
    ],
    ids=str,
)
def test_description_rebuilds_it(attack: Attack) -> None:
    config = json.loads(json.dumps(attack.config()))
    module, _, name = config["class_path"].rpartition(".")
    again = getattr(importlib.import_module(module), name)(**config["init_args"])
    parsed = build(config, Attack)
    assert type(again) is type(parsed) is type(attack)
    assert again.config() == parsed.config() == attack.config()
    model, (x, y) = net().eval(), images()
    first, second, third = (a(model, x, y, loss_fn=F.cross_entropy) for a in (attack, again, parsed))
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_repr_shows_the_size() -> None:
    assert repr(FGSM(0.25)) == "FGSM(eps=0.25, bounds=None)"
    assert "eps=0.1" in repr(PGD(0.1))
    assert "steps=3" in repr(nn.Sequential(PGD(0.1, steps=3)))
    noise = SignNoise(0.1)
    noise.generator = torch.Generator()
    assert repr(noise) == "SignNoise(eps=0.1, bounds=None, seed=0)"


def test_has_no_parameters_and_no_state() -> None:
    assert [attack for attack in ATTACKS if attack.state_dict() or [*attack.parameters()]] == []


def test_forward_must_be_defined() -> None:
    class Nothing(Attack):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must define forward"):
        Nothing()(net(), *images(), loss_fn=F.cross_entropy)
