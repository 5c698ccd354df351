"""Callbacks, one per file: what training perturbs or adds, when it stops, and what it saves."""

from adv_lightning.callbacks.checkpoint import AdversarialCheckpoint
from adv_lightning.callbacks.checkpoint_io import WholeCheckpointIO
from adv_lightning.callbacks.class_centres import ClassCentres
from adv_lightning.callbacks.early_stopping import AdversarialEarlyStopping
from adv_lightning.callbacks.final_metrics import FinalMetrics
from adv_lightning.callbacks.finite_loss import FiniteLoss, NotFiniteError
from adv_lightning.callbacks.hidden_perturbation import HiddenPerturbation
from adv_lightning.callbacks.input_noise import InputNoise
from adv_lightning.callbacks.l1_penalty import L1Penalty
from adv_lightning.callbacks.max_norm import MaxNorm
from adv_lightning.callbacks.momentum_schedule import MomentumSchedule
from adv_lightning.callbacks.progress_bar import TimedProgressBar
from adv_lightning.callbacks.resume_settings import GivenSettings
from adv_lightning.callbacks.rubbish_training import RubbishTraining

__all__ = [
    "AdversarialCheckpoint",
    "AdversarialEarlyStopping",
    "ClassCentres",
    "FinalMetrics",
    "FiniteLoss",
    "GivenSettings",
    "HiddenPerturbation",
    "InputNoise",
    "L1Penalty",
    "MaxNorm",
    "MomentumSchedule",
    "NotFiniteError",
    "RubbishTraining",
    "TimedProgressBar",
    "WholeCheckpointIO",
]
