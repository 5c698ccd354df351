"""Examples that an attack without the gradient fools and no attack along the gradient does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adv_lightning.attacks import PGD, Attack, Ball
from adv_lightning.attacks.margin import margin_loss
from adv_lightning.evaluation.attack_counts import counted
from adv_lightning.metrics import ErrorRate
from adv_lightning.module import AdversarialModule

RETRIES = 10
RETRY_STEPS = 40
_CLOSE = 1e-6
"""Relative size of rounding."""


@dataclass(frozen=True)
class MissedExamples:
    """Numbers of examples in one ball, over all processes.

    Args:
        found: Correct clean, and fooled by an attack without the gradient.
        passed_over: Of these, fooled by none of the attacks along the gradient that judge the network.
        missed: Of these, not fooled by PGD with restarts on the margin either.
        n: All.
    """

    found: int
    passed_over: int
    missed: int
    n: int


class MissedExampleCounts:
    """Counts missed examples in each ball that holds both kinds of attack.

    An attack along the gradient counts in every ball that contains its own. In the ball itself one of them must take
    several steps that can cross it.

    Args:
        attacks: The attacks that judge the network, by name.
        device: Where the network is.
    """

    def __init__(self, attacks: Mapping[str, Attack], device: torch.device) -> None:
        self._models = {name: attack.threat_model() for name, attack in attacks.items()}
        models = self._models.values()
        balls = {model.ball for model in models if model.ball is not None and model.uses_gradient is False}
        chosen = sorted((ball for ball in balls if ball.eps and self._is_contested(ball)), key=repr)
        self._counts = {ball: [ErrorRate().to(device) for _ in range(3)] for ball in chosen}

    def update(
        self, module: AdversarialModule, x: Tensor, y: Tensor, wrong: Tensor, fooled: Mapping[str, Tensor]
    ) -> None:
        """Add examples: x, [B, ...], y, int64 [B], which are misclassified clean, bool [B], and under each attack."""
        for ball, counts in self._counts.items():
            found, reached = torch.zeros_like(wrong), wrong.clone()
            for name, who in fooled.items():
                model = self._models[name]
                if model.uses_gradient is False and model.ball == ball:
                    found |= who
                elif model.uses_gradient and _lies_in(model.ball, ball):
                    reached |= who
            missed = passed_over = found & ~reached
            if passed_over.any():
                missed = passed_over.clone()
                missed[passed_over] = ~_fooled_again(module, x[passed_over], y[passed_over], ball)
            for count, who in zip(counts, (found & ~wrong, passed_over, missed), strict=True):
                count.update(who, torch.zeros_like(who))

    def worst(self) -> MissedExamples | None:
        """Return the numbers of the ball with the most missed examples; None if there is no such ball."""
        balls = [[counted(count) for count in counts] for counts in self._counts.values()]
        numbers = [MissedExamples(found, passed_over, missed, n) for (found, n), (passed_over, _), (missed, _) in balls]
        return max(numbers, key=lambda number: (number.missed, number.found), default=None)

    def _is_contested(self, ball: Ball) -> bool:
        return any(
            model.ball == ball
            and model.uses_gradient
            and model.uses_label
            and (model.steps or 0) > 1
            and (model.reach or 0) >= ball.eps * (1 - _CLOSE)
            for model in self._models.values()
        )


def _fooled_again(module: AdversarialModule, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Return which examples PGD fools after all, bool [B], with restarts and the margin as its loss.

    One run may fail where gradients jump, and a loss may lead elsewhere than to a mistake. Neither masks gradients.
    """
    if ball.norm != math.inf:
        return torch.zeros_like(y, dtype=torch.bool)
    attack = PGD(ball.eps, steps=RETRY_STEPS, bounds=ball.bounds, seed=1, restarts=RETRIES)
    predicted: Tensor = module.loss_fn.predict(module(attack(module, x, y, loss_fn=margin_loss)))
    return predicted != y


def _lies_in(ball: Ball | None, other: Ball) -> bool:
    """Whether one ball lies in the other, as far as norm and bounds tell."""
    if ball is None or (ball.norm, ball.bounds) != (other.norm, other.bounds):
        return False
    return ball.eps <= other.eps * (1 + _CLOSE)
