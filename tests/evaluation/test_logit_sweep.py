from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adv_lightning import FGSM, AdversarialModule, LogitSweep, ScaledGradient
from adv_lightning.evaluation.logit_sweep import logit_sweep
from adv_lightning.losses import LogisticLoss
from tests.support.helpers import Batches, quiet_trainer


def linear() -> AdversarialModule:
    torch.manual_seed(0)
    return AdversarialModule(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), FGSM(0.05)).eval()


def test_linear_network_gives_lines() -> None:
    module, x, y = linear(), torch.rand(1, 1, 2, 2), torch.tensor([1])
    eps = torch.linspace(-2, 2, 9)
    inputs, logits = logit_sweep(module, x, y, eps)
    layer = module.backbone[1]
    p = module(x).softmax(1).detach()
    direction = ((p - torch.tensor([[0.0, 1, 0]])) @ layer.weight.detach()).sign()
    torch.testing.assert_close(inputs, x + eps.view(-1, 1, 1, 1) * direction.view(1, 1, 2, 2))
    slope = direction @ layer.weight.detach().T
    torch.testing.assert_close(logits, module(x).detach() + eps[:, None] * slope)


def test_records_the_correct_share() -> None:
    module, sweep = linear(), LogitSweep(points=101)
    x, y = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 2])
    quiet_trainer(callbacks=[sweep]).test(module, Batches((x[:1], y[:1]), (x[1:], y[1:])), verbose=False)
    assert sweep.section is not None
    found = sweep.section.record["logit_sweep"]
    _, logits = logit_sweep(module.eval(), x[:1], y[:1], torch.linspace(-0.5, 0.5, 101))
    correct = (logits.argmax(1) == 1).float().mean().item()
    assert found == {"limit": 0.5, "points": 101, "target": 1, "correct": pytest.approx(correct)}
    assert 0 < correct < 1
    (picture,) = sweep.section.pictures
    assert picture.draw().axes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"points": 48}, "points=48"), ({"limit": 0}, "limit=0"), ({"limit": "x"}, "limit='x'")],
)
def test_refuses_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LogitSweep(**arguments)


def test_without_a_limit_a_note_says_that_it_is_left_out() -> None:
    module, sweep = AdversarialModule(linear().backbone, ScaledGradient(1.0)), LogitSweep()
    data = Batches((torch.rand(1, 1, 2, 2), torch.tensor([0])))
    quiet_trainer(callbacks=[sweep]).test(module, data, verbose=False)
    assert sweep.section is not None
    assert "callbacks.logit_sweep.limit" in sweep.section.notes[0]
    assert sweep.section.pictures == []


@pytest.mark.parametrize("flat", [False, True])
def test_single_logit_without_images(flat: bool) -> None:
    net = nn.Sequential(nn.Linear(4, 1), *([nn.Flatten(0)] if flat else []))
    module, sweep = AdversarialModule(net, FGSM(0.1), loss_fn=LogisticLoss()), LogitSweep(points=49)
    data = Batches((torch.rand(2, 4), torch.tensor([0, 1])))
    quiet_trainer(callbacks=[sweep]).test(module, data, verbose=False)
    assert sweep.section is not None
    (picture,) = sweep.section.pictures
    (axis,) = picture.draw().axes
    assert len(axis.lines[-1].get_xdata()) == 49
