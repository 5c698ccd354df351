"""Evaluations: callbacks that judge the network in validate and test, and the report of what they found."""

from adv_lightning.evaluation.attack_suite import AttackSuite
from adv_lightning.evaluation.first_layer import FirstLayer
from adv_lightning.evaluation.fooling import Fooling
from adv_lightning.evaluation.logit_sweep import LogitSweep
from adv_lightning.evaluation.report import Report
from adv_lightning.evaluation.rubbish_test import RubbishTest
from adv_lightning.evaluation.section import Evaluator, Section

__all__ = ["AttackSuite", "Evaluator", "FirstLayer", "Fooling", "LogitSweep", "Report", "RubbishTest", "Section"]
