"""Attacks as data: class paths, descriptions, calls."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from adv_lightning import FGSM, PGD, Attack, MemberAttack, SingleStepAttack, Transferred
from adv_lightning.attacks import Ball, Noise
from adv_lightning.attacks.description import as_call, build, class_name, class_path, describe, keyword_arguments


class Mine(SingleStepAttack):
    """A user's own attack."""

    def __init__(self, eps: float, size: int = 3) -> None:
        super().__init__()
        self.eps, self.size = eps, size

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + self.eps


class Bare(Attack):
    """An attack without a constructor of its own."""


def test_class_path_is_the_shortest_public_one() -> None:
    assert class_path(FGSM) == "adv_lightning.FGSM"
    assert class_path(Transferred) == "adv_lightning.Transferred"
    assert class_path(Ball) == "adv_lightning.Ball"
    assert class_path(Mine) == f"{__name__}.Mine"


def test_class_path_of_another_class_of_a_public_name() -> None:
    other = type("FGSM", (Mine,), {"__module__": "adv_lightning.attacks.fgsm"})
    assert class_path(other) == "adv_lightning.attacks.fgsm.FGSM"


def test_describe_and_build_are_inverse() -> None:
    for attack in (FGSM("8/255", (0, 1)), MemberAttack(MemberAttack(PGD(0.1, steps=3), 1), 2), Mine(0.5, 7), Bare()):
        description = describe(attack)
        again = build(description, Attack)
        assert type(again) is type(attack)
        assert describe(again) == description == attack.config()


def test_describe_nests() -> None:
    inner = {"class_path": "adv_lightning.FGSM", "init_args": {"eps": 0.1, "bounds": None}}
    outer = {"class_path": "adv_lightning.MemberAttack", "init_args": {"attack": inner, "member": 0}}
    assert describe(MemberAttack(FGSM(0.1))) == outer
    assert describe(Bare()) == {"class_path": f"{__name__}.Bare", "init_args": {}}


def test_build_accepts_old_paths_that_still_exist_and_no_arguments() -> None:
    assert isinstance(build({"class_path": "adv_lightning.attacks.fgsm.FGSM", "init_args": {"eps": 1}}, Attack), FGSM)
    assert isinstance(build({"class_path": f"{__name__}.Bare"}, Attack), Bare)
    assert isinstance(build({"class_path": f"{__name__}.Bare", "init_args": None}, Attack), Bare)


@pytest.mark.parametrize("path", ["adv_lightning.Nothing", "nowhere.at.all.FGSM", "FGSM", ""])
def test_build_refuses_a_missing_class(path: str) -> None:
    with pytest.raises(ImportError, match=path.partition(".")[0] or "class_path"):
        build({"class_path": path}, Attack)


@pytest.mark.parametrize("path", ["torch.nn.Linear", "torch.zeros"])
def test_build_refuses_another_kind(path: str) -> None:
    with pytest.raises(TypeError, match=rf"{path}.*Attack"):
        build({"class_path": path}, Attack)


@pytest.mark.parametrize("arguments", [{}, {"eps": 0.1, "sise": 3}])
def test_build_refuses_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"eps|sise"):
        build({"class_path": f"{__name__}.Mine", "init_args": arguments}, Attack)


def test_build_checks_nested_descriptions() -> None:
    inner = {"class_path": "adv_lightning.Nothing", "init_args": {}}
    with pytest.raises(ImportError, match=r"adv_lightning\.Nothing"):
        build({"class_path": "adv_lightning.MemberAttack", "init_args": {"attack": inner}}, Attack)


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        ("8/255", "8/255"),
        (8 / 255, "8/255"),
        (0.5 / 255, "0.001961"),
        (0.2, "0.2"),
        (1 / 3, "0.3333"),
        (0.0314, "0.0314"),
    ],
)
def test_a_fraction_of_255_is_written_as_one(eps: float | str, text: str) -> None:
    assert as_call(FGSM(eps).config()) == f"FGSM(eps={text}, bounds=None)"


def test_as_call_omits_defaults_except_those_that_matter() -> None:
    assert as_call(FGSM(1 / 3).config()) == "FGSM(eps=0.3333, bounds=None)"
    assert as_call(PGD(0.32).config()) == "PGD(eps=0.32, step_size=0.02, steps=40, bounds=None, seed=0)"
    assert as_call(PGD(0.25, restarts=2).config()).endswith("seed=0, restarts=2)")
    assert as_call(MemberAttack(FGSM(0.1)).config()) == "MemberAttack(attack=FGSM(eps=0.1, bounds=None))"
    assert as_call(Mine(0.5).config()) == "Mine(eps=0.5)"
    assert as_call(Mine(0.5, 4).config()) == "Mine(eps=0.5, size=4)"
    assert as_call(Bare().config()) == "Bare()"


def test_as_call_of_a_class_that_is_not_imported() -> None:
    assert as_call({"class_path": "nowhere.Theirs", "init_args": {"a": 1, "eps": 0.5}}) == "Theirs(a=1, eps=0.5)"
    assert as_call({"class_path": "Theirs"}) == "Theirs()"


def test_names_and_arguments() -> None:
    assert class_name(FGSM(0.1).config()) == "FGSM"
    assert class_name({"class_path": "adv_lightning.attacks.fgsm.FGSM"}) == "FGSM"
    assert keyword_arguments(Mine(0.5)) == "eps=0.5, size=3"
    assert keyword_arguments(Noise()) == "bounds=None, seed=0"


def test_a_description_may_not_name_any_class() -> None:
    inner = {"class_path": "subprocess.Popen", "init_args": {"args": ["false"]}}
    with pytest.raises(TypeError, match=r"subprocess\.Popen"):
        build({"class_path": "adv_lightning.MemberAttack", "init_args": {"attack": inner}}, Attack)
