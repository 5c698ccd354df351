"""Training methods: how a batch becomes the objective that is minimised. Plain torch."""

from adv_lightning.methods.base import Learner, Method
from adv_lightning.methods.mixed import Mixed
from adv_lightning.methods.perturbation_sites import InputSite, LayerSite, PerturbationSite
from adv_lightning.methods.two_pass_objective import Objective, Passes, adversarial_objective

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
