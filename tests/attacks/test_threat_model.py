"""What attacks say about themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adv_lightning import (
    FGSM,
    PGD,
    Attack,
    GaussianNoise,
    MemberAttack,
    Rotation,
    ScaledGradient,
    SignNoise,
    SingleStepAttack,
    TargetedFGSM,
    Transferred,
    UniformNoise,
)
from adv_lightning.attacks import Ball
from adv_lightning.attacks.threat_model import ThreatModel

BOX = (0.0, 1.0)
CHECKPOINT = str(Path(__file__))  # read only when the attack is called
KNOWN: list[tuple[Attack, ThreatModel]] = [
    (FGSM(0.25), ThreatModel(Ball(math.inf, 0.25), True, True, 1, 0.25)),
    (FGSM("1/4", (0, 1)), ThreatModel(Ball(math.inf, 0.25, BOX), True, True, 1, 0.25)),
    (PGD(0.5, 0.125, 6), ThreatModel(Ball(math.inf, 0.5), True, True, 6, 0.25)),
    (PGD(0.5, 0.125, 8, random_start=False), ThreatModel(Ball(math.inf, 0.5), True, True, 8, 1.0)),
    (ScaledGradient(2), ThreatModel(Ball(2, 2.0), True, True, 1, 2.0)),
    (ScaledGradient(2, "none"), ThreatModel(None, True, True, 1, None)),
    (Rotation(0.1), ThreatModel(None, True, True, 1, None)),
    (TargetedFGSM(0.25, 3), ThreatModel(Ball(math.inf, 0.25), False, True, 1, 0.25)),
    (SignNoise(0.25), ThreatModel(Ball(math.inf, 0.25), False, False, 1, 0.25)),
    (UniformNoise(0.25, BOX), ThreatModel(Ball(math.inf, 0.25, BOX), False, False, 1, 0.25)),
    (GaussianNoise(0.25), ThreatModel(None, False, False, 1, None)),
    (MemberAttack(ScaledGradient(2)), ThreatModel(Ball(2, 2.0), True, False, 1, 2.0)),
    (Transferred(CHECKPOINT, PGD(0.5, 0.125, 6)), ThreatModel(Ball(math.inf, 0.5), True, False, 6, 0.25)),
    (Transferred(CHECKPOINT, TargetedFGSM(0.25, 3)), ThreatModel(Ball(math.inf, 0.25), False, False, 1, 0.25)),
]


@pytest.mark.parametrize(("attack", "facts"), KNOWN, ids=lambda value: str(value)[:60])
def test_facts_of_the_librarys_attacks(attack: Attack, facts: ThreatModel) -> None:
    assert attack.threat_model() == facts
    assert ThreatModel.from_json(json.loads(json.dumps({"name": "row", **facts.to_json()}))) == facts


def test_facts_as_data() -> None:
    assert PGD(0.5, 0.125, 8, bounds=(0, 1)).threat_model().to_json() == {
        "ball": {"norm": "Linf", "eps": 0.5, "bounds": [0.0, 1.0]},
        "uses_label": True,
        "uses_gradient": True,
        "steps": 8,
        "reach": 0.5,
    }
    assert ThreatModel.from_json(ThreatModel().to_json()) == ThreatModel()


class Mine(Attack):
    """A user's own attack, which says nothing about itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class Shift(SingleStepAttack):
    needs_grad = False

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + 1


class Declared(Attack):
    """A user's own attack in another norm, without labels."""

    uses_label = False
    uses_gradient = None

    def ball(self) -> Ball:
        return Ball(1, 3.0)


def test_ball_of_a_users_attack_follows_its_attributes() -> None:
    found = [
        ({"eps": 0.1}, Ball(math.inf, 0.1)),
        ({"eps": 1, "bounds": [0, 1]}, Ball(math.inf, 1.0, BOX)),
        ({"eps": 0.1, "norm": "L2"}, Ball(2, 0.1)),
        ({"eps": 0.1, "norm": 1}, Ball(1, 0.1)),
        ({"eps": 0.1, "norm": math.inf}, Ball(math.inf, 0.1)),
        ({"eps": 0.1, "norm": "linf"}, Ball(math.inf, 0.1)),
    ]
    for attributes, ball in found:
        assert Mine(**attributes).ball() == ball, attributes


def test_ball_is_none_if_an_attribute_does_not_fit() -> None:
    for attributes in (
        {},
        {"eps": None},
        {"eps": True},
        {"eps": "8/255"},
        {"eps": -0.1},
        {"eps": math.nan},
        {"eps": math.inf},
        {"eps": torch.tensor([0.1, 0.2])},
        {"eps": 0.1, "norm": "none"},
        {"eps": 0.1, "norm": 0},
        {"eps": 0.1, "bounds": (torch.zeros(3), torch.ones(3))},
        {"eps": 0.1, "bounds": (0, 1, 2)},
        {"eps": 0.1, "bounds": 1},
    ):
        assert Mine(**attributes).ball() is None, attributes


def test_reach_of_a_users_attack_follows_its_attributes() -> None:
    for attributes, reach in (
        ({"eps": 0.5}, None),
        ({"eps": 0.5, "steps": 1}, 0.5),
        ({"eps": 0.5, "steps": 4}, None),
        ({"eps": 0.5, "steps": 4, "step_size": 0.25}, 1.0),
        ({"eps": 0.5, "steps": 4, "step_size": 0.25, "random_start": True}, 0.5),
        ({"steps": 4, "step_size": 0.25}, None),
        ({"eps": 0.5, "steps": "many", "step_size": 0.25}, None),
    ):
        assert Mine(**attributes).reach() == reach, attributes
    assert Mine(eps=0.5, steps="many").threat_model().steps is None


def test_facts_of_users_attacks() -> None:
    assert Mine(eps=0.5, steps=3).threat_model() == ThreatModel(Ball(math.inf, 0.5), True, True, 3, None)
    assert Shift().threat_model() == ThreatModel(None, False, False, 1, None)
    assert Declared().threat_model() == ThreatModel(Ball(1, 3.0), False, None, None, None)


def test_norms_have_names() -> None:
    assert [Ball(norm, 1).norm_name for norm in (math.inf, 2, 1, 1.5)] == ["Linf", "L2", "L1", "L1.5"]
