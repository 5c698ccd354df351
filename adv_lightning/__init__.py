"""Adversarial training and honest evaluation of classifiers with PyTorch Lightning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adv_lightning.attacks import (
        FGSM,
        PGD,
        Attack,
        AutoAttack,
        FoolboxAttack,
        GaussianNoise,
        MemberAttack,
        Noise,
        Rotation,
        ScaledGradient,
        SignNoise,
        SingleStepAttack,
        TargetedFGSM,
        TorchAttack,
        UniformNoise,
    )
    from adv_lightning.callbacks import (
        AdversarialCheckpoint,
        AdversarialEarlyStopping,
        AdversarialPictures,
        ClassCentres,
        FinalMetrics,
        FiniteLoss,
        GivenSettings,
        HiddenPerturbation,
        InputNoise,
        L1Penalty,
        MaxNorm,
        MomentumSchedule,
        NotFiniteError,
        RubbishTraining,
        TimedProgressBar,
    )
    from adv_lightning.checkpoint_ensemble import CheckpointEnsemble
    from adv_lightning.checkpoint_io import WholeCheckpointIO
    from adv_lightning.cli import AdversarialCLI, main
    from adv_lightning.comparison import Comparison
    from adv_lightning.evaluation import AttackSuite, Evaluator, FirstLayer, Fooling, LogitSweep, Report, RubbishTest
    from adv_lightning.losses import LogisticLoss, Loss, RBFLoss, SigmoidLoss, SoftmaxLoss, adversarial_logistic
    from adv_lightning.module import AdversarialModule
    from adv_lightning.objective import Objective, Passes, adversarial_objective
    from adv_lightning.sites import InputSite, LayerSite, PerturbationSite
    from adv_lightning.transferred import Transferred

__version__ = "0.1.0"

_HOMES = {
    "attacks": [
        "FGSM",
        "PGD",
        "Attack",
        "AutoAttack",
        "FoolboxAttack",
        "GaussianNoise",
        "MemberAttack",
        "Noise",
        "Rotation",
        "ScaledGradient",
        "SignNoise",
        "SingleStepAttack",
        "TargetedFGSM",
        "TorchAttack",
        "UniformNoise",
    ],
    "callbacks": [
        "AdversarialCheckpoint",
        "AdversarialEarlyStopping",
        "AdversarialPictures",
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
    ],
    "checkpoint_ensemble": ["CheckpointEnsemble"],
    "checkpoint_io": ["WholeCheckpointIO"],
    "cli": ["AdversarialCLI", "main"],
    "comparison": ["Comparison"],
    "evaluation": ["AttackSuite", "Evaluator", "FirstLayer", "Fooling", "LogitSweep", "Report", "RubbishTest"],
    "losses": ["LogisticLoss", "Loss", "RBFLoss", "SigmoidLoss", "SoftmaxLoss", "adversarial_logistic"],
    "module": ["AdversarialModule"],
    "objective": ["Objective", "Passes", "adversarial_objective"],
    "sites": ["InputSite", "LayerSite", "PerturbationSite"],
    "transferred": ["Transferred"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "FGSM",
    "PGD",
    "AdversarialCLI",
    "AdversarialCheckpoint",
    "AdversarialEarlyStopping",
    "AdversarialModule",
    "AdversarialPictures",
    "Attack",
    "AttackSuite",
    "AutoAttack",
    "CheckpointEnsemble",
    "ClassCentres",
    "Comparison",
    "Evaluator",
    "FinalMetrics",
    "FiniteLoss",
    "FirstLayer",
    "FoolboxAttack",
    "Fooling",
    "GaussianNoise",
    "GivenSettings",
    "HiddenPerturbation",
    "InputNoise",
    "InputSite",
    "L1Penalty",
    "LayerSite",
    "LogisticLoss",
    "LogitSweep",
    "Loss",
    "MaxNorm",
    "MemberAttack",
    "MomentumSchedule",
    "Noise",
    "NotFiniteError",
    "Objective",
    "Passes",
    "PerturbationSite",
    "RBFLoss",
    "Report",
    "Rotation",
    "RubbishTest",
    "RubbishTraining",
    "ScaledGradient",
    "SigmoidLoss",
    "SignNoise",
    "SingleStepAttack",
    "SoftmaxLoss",
    "TargetedFGSM",
    "TimedProgressBar",
    "TorchAttack",
    "Transferred",
    "UniformNoise",
    "WholeCheckpointIO",
    "adversarial_logistic",
    "adversarial_objective",
    "main",
]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import adv_lightning` and the top-level --help need not import torch.
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"adv_lightning.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
