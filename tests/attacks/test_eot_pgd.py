"""EOTPGD: the mean of gradients, counted, and PGD where nothing is random."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import EOTPGD, PGD
from tests.support.helpers import Counter, mlp


def data() -> tuple[Tensor, Tensor]:
    return torch.rand(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(12) % 3


class Masked(nn.Module):
    """Lets one of the six pixels through, another one each time it is asked."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.asked = net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = self.net(x * (torch.arange(6) == self.asked % 6))
        return logits


def test_equals_pgd_where_nothing_is_random() -> None:
    net, (x, y) = mlp().eval(), data()
    found = EOTPGD(0.2, steps=5, samples=3)(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(found, PGD(0.2, steps=5)(net, x, y, loss_fn=F.cross_entropy), rtol=0, atol=1e-12)


def test_follows_the_mean_of_the_gradients() -> None:
    """One sample moves one pixel, six move all."""
    x, y = data()
    for samples in (1, 6):
        net = Masked(mlp()).eval()
        attack = EOTPGD(0.1, step_size=0.1, steps=1, random_start=False, samples=samples)
        moved = (attack(net, x, y, loss_fn=F.cross_entropy) - x).abs() > 1e-12
        assert moved.sum(dim=1).tolist() == [samples] * 12
        assert net.asked == samples


def test_costs_its_samples() -> None:
    net, (x, y) = mlp().eval(), data()
    counter = Counter(net)
    EOTPGD(0.1, steps=4, samples=5)(net, x, y, loss_fn=F.cross_entropy)
    assert (counter.forward, counter.backward) == (20, 20)


def test_describes_itself() -> None:
    assert EOTPGD(0.1).step_size == PGD(0.1).step_size
    assert EOTPGD(0.1, samples=7).config()["init_args"]["samples"] == 7


def test_refuses_no_sample() -> None:
    with pytest.raises(ValueError, match="samples=0: give at least 1"):
        EOTPGD(0.1, samples=0)
