"""Training and judging in bfloat16."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack
from tests.support.helpers import CountedFGSM, adversarial, batches, fit, mlp, quiet_trainer, weights

SGD = partial(torch.optim.SGD, lr=0.1)


@pytest.mark.parametrize("attack", [CountedFGSM(0.1), PGD(0.1, steps=2)], ids=["FGSM", "PGD"])
def test_every_loop(attack: Attack) -> None:
    torch.manual_seed(0)
    net, loader = mlp().float(), batches(3, dtype=torch.float32)
    start = weights(net)
    module = AdversarialModule(net, attack, optimizer=SGD)
    trainer = fit(module, loader, loader, precision="bf16-mixed", max_epochs=2)
    trainer.validate(module, loader, verbose=False)
    trainer.test(module, loader, verbose=False)
    assert weights(net).isfinite().all()
    assert not torch.equal(weights(net), start)
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("loop", ["validate", "test", "fit"])
def test_gradient(loop: str) -> None:
    net, attack, loader = mlp().float(), CountedFGSM(0.1), batches(1, size=64, dtype=torch.float32)
    ((x, y),) = loader
    module = AdversarialModule(net, None, val_attack=attack, optimizer=partial(torch.optim.SGD, lr=0.0))
    if loop == "fit":
        fit(module, loader, loader, precision="bf16-mixed")
    else:
        getattr(quiet_trainer(precision="bf16-mixed"), loop)(module, loader, verbose=False)
    assert attack.calls == 1
    with torch.autocast("cpu", torch.bfloat16):
        expected = adversarial(copy.deepcopy(net), x, y, 0.1)
    assert attack.x_adv.dtype == torch.float32
    assert torch.equal(attack.x_adv, expected)
    assert (attack.x_adv == adversarial(net, x, y, 0.1)).float().mean() > 0.97


def test_near_float32() -> None:
    loader = batches(10, dtype=torch.float32)
    results = []
    for precision in ("32-true", "bf16-mixed"):
        module = AdversarialModule(mlp().float(), FGSM(0.1), optimizer=SGD)
        fit(module, loader, precision=precision)
        results.append(weights(module) - weights(mlp().float()))
    assert F.cosine_similarity(*results, dim=0) > 0.99
