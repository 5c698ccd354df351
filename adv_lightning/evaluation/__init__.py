"""Evaluations: callbacks that judge the network in validate and test, and the report of their results."""

from adv_lightning.evaluation.attack_suite import AttackSuite
from adv_lightning.evaluation.checkpoint_ensemble import CheckpointEnsemble
from adv_lightning.evaluation.comparison import Comparison
from adv_lightning.evaluation.evaluator import Evaluator
from adv_lightning.evaluation.first_layer import FirstLayer
from adv_lightning.evaluation.fooling import Fooling
from adv_lightning.evaluation.logit_sweep import LogitSweep
from adv_lightning.evaluation.pictures import AdversarialPictures
from adv_lightning.evaluation.report import Report
from adv_lightning.evaluation.report_section import Section
from adv_lightning.evaluation.rubbish import RubbishTest
from adv_lightning.evaluation.transferred_attack import Transferred

__all__ = [
    "AdversarialPictures",
    "AttackSuite",
    "CheckpointEnsemble",
    "Comparison",
    "Evaluator",
    "FirstLayer",
    "Fooling",
    "LogitSweep",
    "Report",
    "RubbishTest",
    "Section",
    "Transferred",
]
