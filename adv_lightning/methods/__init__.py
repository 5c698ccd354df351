"""Training methods: how a batch becomes the objective that is minimised. Plain torch."""

from adv_lightning.methods.base import Learner, Method
from adv_lightning.methods.mixed import Mixed
from adv_lightning.methods.objective import Objective, Passes, adversarial_objective
from adv_lightning.methods.sites import InputSite, LayerSite, PerturbationSite

__all__ = [
    "InputSite",
    "LayerSite",
    "Learner",
    "Method",
    "Mixed",
    "Objective",
    "Passes",
    "PerturbationSite",
    "adversarial_objective",
]
