"""Attacks, (model, x, y) -> x_adv, and the rules they are built on. Plain torch."""

from adv_lightning.attacks.base import Attack, Rule, SingleStepAttack
from adv_lightning.attacks.ensemble_member import MemberAttack
from adv_lightning.attacks.eot_pgd import EOTPGD
from adv_lightning.attacks.external import AutoAttack, FoolboxAttack, TorchAttack
from adv_lightning.attacks.fgsm import FGSM
from adv_lightning.attacks.gradients import input_gradient
from adv_lightning.attacks.noise import GaussianNoise, Noise, SignNoise, UniformNoise
from adv_lightning.attacks.pgd import PGD
from adv_lightning.attacks.rotation import Rotation
from adv_lightning.attacks.scaled_gradient import ScaledGradient
from adv_lightning.attacks.square import Square
from adv_lightning.attacks.targeted import TargetedFGSM
from adv_lightning.attacks.threat_model import Ball

__all__ = [
    "EOTPGD",
    "FGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "Ball",
    "FoolboxAttack",
    "GaussianNoise",
    "MemberAttack",
    "Noise",
    "Rotation",
    "Rule",
    "ScaledGradient",
    "SignNoise",
    "SingleStepAttack",
    "Square",
    "TargetedFGSM",
    "TorchAttack",
    "UniformNoise",
    "input_gradient",
]
