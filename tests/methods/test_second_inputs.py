"""A second input that `unpack` keeps for the network, and attacks that differentiate by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, AdversarialModule, Attack, AttackSuite
from tests.support.helpers import Batches, Snapshot, fit, mlp, norm_net, quiet_trainer


class WithMask(AdversarialModule):
    """Its batches are (x, mask, y), and its network sees x where the mask is 1."""

    mask: Tensor

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        x, mask, y = batch
        self.mask = mask * 1.0  # made here, so under whatever mode this runs in
        return x, y

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.mask)


def masked_batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(8, 6, generator=generator, dtype=torch.float64)  # noqa: E731
    return Batches(*((draw(), (draw() > 0).double(), torch.randint(3, (8,), generator=generator)) for _ in range(3)))


class ByHand(Attack):
    """FGSM, as people write it."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, model: Any, x: Tensor, y: Tensor, *, loss_fn: Any) -> Tensor:
        x = x.requires_grad_()
        (grad,) = torch.autograd.grad(loss_fn(model(x), y), x)
        return (x + self.eps * grad.sign()).detach()


@pytest.mark.parametrize("attack", [FGSM(0.3), PGD(0.3, steps=3, random_start=False), ByHand(0.3)])
@pytest.mark.parametrize("samples", [None, 11])
def test_in_every_entry_point(attack: Attack, samples: int | None) -> None:
    module, data = WithMask(mlp(), attack, val_attack_samples=samples, predict_attacked=True), masked_batches()
    fit(module, data, data)
    trainer, net = quiet_trainer(), module.backbone
    val, test = trainer.validate(module, data, verbose=False)[0], trainer.test(module, data, verbose=False)[0]
    predicted = trainer.predict(module, data)
    assert predicted is not None
    wrong, fooled = [], []
    for (x, mask, y), found in zip(data.batches, predicted, strict=True):
        seen = lambda x, mask=mask: net(x * mask)  # noqa: E731
        clean = seen(x)
        x_adv = attack(seen, x, y, loss_fn=F.cross_entropy)
        wrong.append(clean.argmax(1) != y)
        fooled.append(seen(x_adv).argmax(1) != y)
        torch.testing.assert_close(found["clean"], clean.softmax(1).detach())
        guessed = attack(seen, x, clean.argmax(1), loss_fn=F.cross_entropy)
        torch.testing.assert_close(found["attacked"], seen(guessed).softmax(1).detach())
    for stage, figures, n in (("val", val, samples), ("test", test, None)):
        assert figures[f"{stage}/error"] == pytest.approx(torch.cat(wrong).double().mean().item())
        assert figures[f"{stage}/adv_error"] == pytest.approx(torch.cat(fooled)[:n].double().mean().item())


@pytest.mark.parametrize("samples", [None, 5, 11])
def test_in_the_attack_suite(samples: int | None) -> None:
    suite = AttackSuite({"FGSM": FGSM(0.3), "by hand": ByHand(0.3)}, max_samples=samples)
    module = WithMask(mlp(), FGSM(0.3))
    quiet_trainer(callbacks=[suite]).test(module, masked_batches(), verbose=False)
    rows = {row["name"]: row for row in suite.rows}
    net, errors = module.backbone, 0
    left = samples or 24
    for x, mask, y in masked_batches().batches:
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(net(leaf * mask), y), leaf)
        wrong = net((x + 0.3 * grad.sign()) * mask).argmax(1) != y
        errors += int(wrong[: max(left, 0)].sum())
        left -= 8
    assert rows["FGSM"]["n"] == rows["by hand"]["n"] == (samples or 24)
    assert rows["FGSM"]["error"] == rows["by hand"]["error"] == errors / (samples or 24)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_an_attack_that_differentiates_by_itself(mode: Any) -> None:
    net = norm_net().train()
    net[5].eval()
    before = Snapshot(net)
    with mode():
        x, y = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 3
        found = ByHand(0.1)(net, x, y, loss_fn=F.cross_entropy)
    assert ((found - x).abs() - 0.1).abs().max() < 1e-12
    before.assert_same(net)
