"""The logits along the line from an example through its adversarial example."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from adv_lightning.attacks import input_gradient
from adv_lightning.attacks.argument_checks import magnitude
from adv_lightning.evaluation import plots
from adv_lightning.evaluation.default_attacks import left_out, max_norm_ball
from adv_lightning.evaluation.evaluator import Evaluator, class_names
from adv_lightning.evaluation.report_section import Picture, Section
from adv_lightning.module import AdversarialModule

_STRIP = 49


class LogitSweep(Evaluator):
    """Follows the logits of the first example along x + eps * sign(dJ/dx), eps from -limit to limit.

    Drawn as in figure 4 of Goodfellow et al. (2015): the logits against eps, and a strip of 49 of the inputs, with
    frames around those classified correctly. The record contains the share of the line that is classified correctly.

    Args:
        limit: Largest eps, in the units of the input; the paper's figure goes to 10. Null: 10 times the eps of the
            module's `val_attack`; without one in the max norm, the sweep is left out.
        points: Number of eps, at least 49.

    Raises:
        ValueError: `limit` is not a size above 0, or `points` is below 49.
    """

    def __init__(self, limit: float | str | None = None, points: int = 201) -> None:
        if points < _STRIP:
            raise ValueError(f"points={points!r}: give at least {_STRIP}")
        self.limit = None if limit is None else magnitude("limit", limit)
        if self.limit == 0:
            raise ValueError("limit=0: give a size above 0")
        self.points = points

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        ball = max_norm_ball(module.val_attack)
        self._limit = self.limit or (0.0 if ball is None else 10 * ball.eps)
        self._found: tuple[Tensor, Tensor, Tensor, int] | None = None

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        if self._found is not None or not trainer.is_global_zero or not self._limit:
            return
        eps = torch.linspace(-self._limit, self._limit, self.points)
        inputs, logits = logit_sweep(module, x[:1], y[:1], eps)
        correct = module.loss_fn.predict(logits) == y[:1]
        self._found = inputs.float().cpu(), logits.float().cpu(), correct.cpu(), int(y[0])

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        title = "Logits against eps"
        if not self._limit:
            return Section(title, notes=[left_out("LogitSweep", "callbacks.logit_sweep.limit")])
        if self._found is None:  # only the first process has it
            return Section(title)
        inputs, logits, correct, y = self._found
        eps = torch.linspace(-self._limit, self._limit, self.points)
        few = torch.linspace(0, self.points - 1, _STRIP).round().long()
        names = class_names(trainer)
        share = correct.float().mean().item()
        if inputs.dim() == 4 and inputs.shape[1] in (1, 3):
            caption = (
                "Logits of the first example, and inputs along the line, from negative eps at the upper left to "
                "positive eps at the lower right. Framed: classified correctly (figure 4 of the paper)."
            )
            images = inputs[few]
        else:
            caption, images = "Logits of the first example. The inputs are not images, so none are shown.", None
        picture = Picture(
            "logits against eps",
            caption,
            lambda: plots.logit_sweep(eps, logits, images, eps[few], correct[few], y, names),
        )
        return Section(
            title,
            f"The first example, of class {y if names is None else names[y]}, along x + eps * sign(dJ/dx), with eps "
            f"from {-self._limit:g} to {self._limit:g} at {self.points} points, not clipped. It is classified "
            f"correctly at {share:.1%} of them.",
            pictures=[picture],
            record={"logit_sweep": {"limit": self._limit, "points": self.points, "target": y, "correct": share}},
        )


def logit_sweep(module: AdversarialModule, x: Tensor, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inputs x + eps * sign(dJ/dx) and their logits, detached.

    Args:
        module: The network and its loss.
        x: One input, floating point, [1, ...].
        y: Its target, [1].
        eps: Sizes of the step, [E], positive or negative.

    Returns:
        Inputs [E, ...] and logits [E, K].
    """
    direction = input_gradient(module, x, y, loss_fn=module.loss).grad.sign()
    steps = eps.to(x).view(-1, *[1] * (x.dim() - 1))
    inputs = x.detach() + steps * direction.to(x.dtype)
    with torch.no_grad():
        return inputs, module(inputs).detach().view(len(eps), -1)
