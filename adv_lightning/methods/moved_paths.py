"""Class paths in older files, and the public names that they stand for. A class that moves gets a line here."""

from __future__ import annotations

from typing import Any

_PATHS = ("class_path", "_class_path")

MOVED = {
    f"adv_lightning.{file}.{name}": f"adv_lightning.{name}"
    for file, names in {
        "attacks.fgsm": ["FGSM"],
        "attacks.gradient": ["ScaledGradient"],
        "attacks.member": ["MemberAttack"],
        "attacks.noise": ["GaussianNoise", "SignNoise", "UniformNoise"],
        "attacks.pgd": ["PGD"],
        "attacks.rotation": ["Rotation"],
        "attacks.targeted": ["TargetedFGSM"],
        "attacks.external": ["AutoAttack", "FoolboxAttack", "TorchAttack"],
        "callbacks": ["AdversarialPictures"],
        "callbacks.centres": ["ClassCentres"],
        "callbacks.checkpoint": ["AdversarialCheckpoint"],
        "callbacks.early_stopping": ["AdversarialEarlyStopping"],
        "callbacks.finite_loss": ["FiniteLoss"],
        "callbacks.given_settings": ["GivenSettings"],
        "callbacks.hidden_perturbation": ["HiddenPerturbation"],
        "callbacks.hyperparameters": ["FinalMetrics"],
        "callbacks.input_noise": ["InputNoise"],
        "callbacks.l1_penalty": ["L1Penalty"],
        "callbacks.max_norm": ["MaxNorm"],
        "callbacks.momentum": ["MomentumSchedule"],
        "callbacks.pictures": ["AdversarialPictures"],
        "callbacks.progress": ["TimedProgressBar"],
        "callbacks.rubbish": ["RubbishTraining"],
        "checkpoint_ensemble": ["CheckpointEnsemble"],
        "checkpoint_io": ["WholeCheckpointIO"],
        "comparison": ["Comparison"],
        "evaluation.attack_suite": ["AttackSuite"],
        "evaluation.first_layer": ["FirstLayer"],
        "evaluation.fooling": ["Fooling"],
        "evaluation.logit_sweep": ["LogitSweep"],
        "evaluation.report": ["Report"],
        "evaluation.rubbish_test": ["RubbishTest"],
        "losses": ["LogisticLoss", "RBFLoss", "SigmoidLoss", "SoftmaxLoss"],
        "module": ["AdversarialModule"],
        "transferred": ["Transferred"],
    }.items()
    for name in names
}
"""Class paths in older files, and the public names that they stand for."""


def moved(value: Any) -> Any:
    """Return stored settings with class paths from before a move as the public ones of today."""
    if isinstance(value, dict):
        return {k: MOVED.get(v, v) if k in _PATHS and isinstance(v, str) else moved(v) for k, v in value.items()}
    return [moved(each) for each in value] if isinstance(value, list) else value
