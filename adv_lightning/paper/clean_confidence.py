"""Confidence on clean images, whether they are classified correctly or not."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import MeanMetric

from adv_lightning.evaluation.evaluator import Evaluator
from adv_lightning.evaluation.report_section import Section
from adv_lightning.module import AdversarialModule


class CleanConfidence(Evaluator):
    """Mean largest probability over all clean examples (Goodfellow et al. 2015, section 7)."""

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        self._mean = MeanMetric().to(module.device)

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        self._mean.update(module.loss_fn.probabilities(module(x)).amax(dim=1).double())

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        mean = self._mean.compute().item()
        n = int(self._mean.weight)
        return Section(
            "Confidence on clean images",
            notes=[f"Mean largest probability on clean images, n = {n}: {mean:.1%}"],
            record={"clean_confidence": {"mean": mean, "n": n}},
        )
