"""Attacks of other libraries, in the units of the input."""

from adv_lightning.attacks.external.auto_attack import AutoAttack
from adv_lightning.attacks.external.base import ExternalAttack
from adv_lightning.attacks.external.foolbox_attack import FoolboxAttack
from adv_lightning.attacks.external.torch_attack import TorchAttack

__all__ = ["AutoAttack", "ExternalAttack", "FoolboxAttack", "TorchAttack"]
