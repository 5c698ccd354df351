"""Attacks rebuilt from the descriptions that checkpoints hold."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from adv_lightning.attacks.base import Attack


def as_attack(attack: Attack | dict[str, Any] | None) -> Attack | None:
    """Return the attack, built if it is a description as `Attack.config` gives it; None stays None.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(attack, dict):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(Attack, "attack")
        attack = parser.instantiate(parser.parse_object({"attack": attack})).attack
    if attack is not None and not isinstance(attack, Attack):
        raise TypeError(
            f"attack={attack!r} is a {type(attack).__name__}: pass an Attack such as FGSM(eps=0.25), or None for none"
        )
    return attack
