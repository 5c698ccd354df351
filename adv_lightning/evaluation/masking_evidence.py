"""What the checks for masked gradients need beside rows of results, counted while the network is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from adv_lightning.attacks import Attack, input_gradient
from adv_lightning.evaluation.attack_counts import counted
from adv_lightning.evaluation.dead_pixels import DeadPixelProbe
from adv_lightning.evaluation.missed_examples import MissedExampleCounts
from adv_lightning.metrics import ErrorRate
from adv_lightning.module import AdversarialModule

ANSWERS = 4
_ROUNDING = 1e-6


class MaskingEvidence:
    """Counts over the examples that the attacks get.

    Args:
        classes: Number of classes, K.
        attacks: The attacks that judge these examples, by name.
        device: Where the network is.
    """

    def __init__(self, classes: int, attacks: Mapping[str, Attack], device: torch.device) -> None:
        self._zero, self._random = (ErrorRate().to(device) for _ in range(2))
        self._missed = MissedExampleCounts(attacks, device)
        self._labels = torch.zeros(classes, dtype=torch.int64, device=device)
        self._range = torch.tensor([math.inf, -math.inf], device=device)
        self._dead = DeadPixelProbe()
        self._draws = False

    def answers_differ(self, module: AdversarialModule, x: Tensor) -> bool:
        """Ask the network four times about each of x, [B, ...], and return whether an answer differs. Four passes.

        A network may draw once for the whole batch, from a few choices, so that two answers could agree by chance.
        """
        first, *others = (module(x).detach().view(len(x), -1) for _ in range(ANSWERS))
        # Devices may add up in another order each time.
        allowed = math.sqrt(torch.finfo(first.dtype).eps) * first.abs().amax(dim=1, keepdim=True)
        differs = torch.stack([((first - other).abs() > allowed).any(dim=1) for other in others]).any(dim=0)
        self._random.update(differs, torch.zeros_like(differs))
        self._draws |= bool(differs.any())
        return self._draws

    def draws_anywhere(self, trainer: Trainer) -> bool:
        """Return whether answers differed in any process. All processes call it together."""
        return bool(trainer.strategy.reduce(self._random.errors, reduce_op="max"))

    def update(
        self,
        trainer: Trainer,
        module: AdversarialModule,
        x: Tensor,
        y: Tensor,
        wrong: Tensor,
        fooled: Mapping[str, Tensor],
    ) -> None:
        """Add examples: x, [B, ...], y, int64 [B], which are misclassified clean, bool [B], and under each attack."""
        grad = input_gradient(module, x, y, loss_fn=module.loss).grad
        zero = ~grad.flatten(1).any(dim=1)
        self._zero.update(zero, torch.zeros_like(zero))
        self._dead.update(trainer, x, grad)
        self._labels += torch.bincount(y.long(), minlength=len(self._labels))
        self._range = torch.stack([torch.minimum(self._range[0], x.min()), torch.maximum(self._range[1], x.max())])
        self._missed.update(module, x, y, wrong, fooled)

    def gathered(self, trainer: Trainer, module: AdversarialModule, step: float) -> dict[str, Any]:
        """Return the counts of all processes, as `masking_checks` takes them.

        Args:
            trainer: The trainer.
            module: The module judged.
            step: By how much a pixel is changed to see whether the network reacts; 0: a tenth of the pixels' range.
        """
        ends = [-self._range[0], self._range[1]]
        lowest, highest = (float(trainer.strategy.reduce(end, reduce_op="max")) for end in ends)
        labels = trainer.strategy.reduce(self._labels, reduce_op="sum")
        return {
            "zero_gradients": counted(self._zero),
            "unit_range": lowest <= _ROUNDING and highest <= 1 + _ROUNDING,
            "missed": self._missed.worst(),
            "two_answers": counted(self._random),
            "dead_pixels": self._dead.find(trainer, module, step or 0.1 * (lowest + highest) or 0.1),
            "labels": labels.tolist(),
        }
