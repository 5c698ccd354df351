"""Attacks: (model, x, y) -> x_adv, and the rules they are built on. Plain torch."""

from adv_lightning.attacks.base import Attack, Rule, SingleStepAttack, input_gradient
from adv_lightning.attacks.fgsm import FGSM
from adv_lightning.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack", "Rule", "SingleStepAttack", "input_gradient"]
