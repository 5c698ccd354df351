"""Fooling images: noise that one gradient step turns into any class."""

from __future__ import annotations

from typing import Any, get_args

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from adv_lightning.attacks.argument_checks import magnitude
from adv_lightning.evaluation import plots
from adv_lightning.evaluation.attack_counts import number_of_classes
from adv_lightning.evaluation.default_attacks import left_out, max_norm_ball
from adv_lightning.evaluation.evaluator import Evaluator, class_names
from adv_lightning.evaluation.fooling_images import (
    Direction,
    Generated,
    class_probability,
    draws,
    fooling_step,
    generate,
)
from adv_lightning.evaluation.report_section import Picture, Section, Table, rate_with_interval
from adv_lightning.evaluation.rubbish import CHUNK
from adv_lightning.evaluation.tables import mode
from adv_lightning.metrics import wilson_interval
from adv_lightning.module import AdversarialModule

_STEPS: tuple[Direction, ...] = get_args(Direction)
_SHOWN = 25


class Fooling(Evaluator):
    """Makes fooling images of every class, and reports how often one step is enough.

    A draw from N(0, I) takes one step towards class k, x + eps * sign(dp_k/dx) or x + eps * dp_k/dx. It succeeds if
    p_k is then at least `threshold`. Goodfellow et al. (2015), appendix A: the text has the gradient, the caption of
    figure 5 its sign. Repeating draw and step until one succeeds generates an image of any class; the number of draws
    that this took is reported. The mean success is logged as `test/fooling_sign` and `test/fooling_gradient`.

    Args:
        samples: Number of draws for each class and each of the two steps, at least 1.
        eps: Size of the step along the sign, in the units of the input. Null: the eps of the module's `val_attack`;
            without one in the max norm, no images are made.
        gradient_eps: Factor of the gradient in the step along it.
        threshold: In [0, 1].
        max_draws: Number of draws, at least 1, after which to give up generating an image of a class.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        samples: int = 1000,
        eps: float | str | None = None,
        gradient_eps: float | str = 100.0,
        threshold: float = 0.5,
        max_draws: int = 1000,
    ) -> None:
        for name, value in (("samples", samples), ("max_draws", max_draws)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: give at least 1")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold!r}: give a probability, from 0 to 1")
        self.samples = samples
        self.eps = None if eps is None else magnitude("eps", eps)
        self.gradient_eps = magnitude("gradient_eps", gradient_eps)
        self.threshold = threshold
        self.max_draws = max_draws

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        self._shape: torch.Size | None = None
        ball = max_norm_ball(module.val_attack)
        eps = self.eps if self.eps is not None or ball is None else ball.eps
        self._sizes = None if eps is None else {"sign": eps, "gradient": self.gradient_eps}

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        self._shape = x.shape[1:]

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        self._shape = trainer.strategy.broadcast(self._shape)
        if self._sizes is None:
            return Section("Fooling images", notes=[left_out("Fooling", "callbacks.fooling.eps")])
        if self._shape is None:  # there were no examples
            return Section("Fooling images")
        with torch.inference_mode():
            blank = trainer.precision_plugin.convert_input(torch.zeros(1, *self._shape)).to(module.device)
            classes = number_of_classes(module(blank), module.loss_fn)
        counts = self._count(classes, self._sizes, trainer, module)
        found: dict[str, Any] = {
            name: {
                "eps": self._sizes[name],
                "success": [count / self.samples for count in counts[i]],
                "interval": [list(wilson_interval(count, self.samples)) for count in counts[i]],
                "mean": sum(counts[i]) / (self.samples * classes),
                "mean_interval": list(wilson_interval(sum(counts[i]), self.samples * classes)),
            }
            for i, name in enumerate(_STEPS)
        }
        for name, figures in found.items():
            module.log(f"{self.stage}/fooling_{name}", figures["mean"], sync_dist=True)
        # All processes make the same draws here, so they need not communicate.
        generated = [
            generate(module, k, blank, self._sizes["sign"], self.threshold, self.max_draws) for k in range(classes)
        ]
        names = class_names(trainer)
        named = [str(k) if names is None else names[k] for k in range(classes)]
        means = (f"{name} {rate_with_interval(f['mean'], f['mean_interval'])}" for name, f in found.items())
        return Section(
            "Fooling images",
            f"{self.samples} draws from N(0, I) for each class and step. A step succeeds if the class then has a "
            f"probability of at least {self.threshold:g}. Model in {mode(module)} mode; seed 0; not clipped.",
            tables=[self._table(named, found, generated)],
            notes=[f"Mean success in percent: {', '.join(means)}"],
            pictures=_pictures(found, generated, named, module, self.threshold),
            record={
                "fooling": {
                    "n": self.samples,
                    "threshold": self.threshold,
                    "distribution": "N(0, I)",
                    "seed": 0,
                    **found,
                    "draws_until_success": [one.draws if one.succeeded else None for one in generated],
                }
            },
        )

    def _count(
        self, classes: int, sizes: dict[str, float], trainer: Trainer, module: AdversarialModule
    ) -> list[list[int]]:
        """Return the number of successes of each step and class, over all processes."""
        counts = torch.zeros(len(_STEPS), classes, dtype=torch.int64, device=module.device)
        work = [(k, i) for k in range(classes) for i in range(-(-self.samples // CHUNK))]
        for k, i in work[trainer.global_rank :: trainer.world_size]:
            z = draws(min(CHUNK, self.samples - i * CHUNK), self._shape or torch.Size([]), k, i)
            z = trainer.precision_plugin.convert_input(z).to(module.device)
            for j, direction in enumerate(_STEPS):
                x = fooling_step(module, z, k, sizes[direction], direction)
                counts[j, k] += (class_probability(module, x, k) >= self.threshold).sum()
        total: Tensor = trainer.strategy.reduce(counts, reduce_op="sum")
        summed: list[list[int]] = total.long().tolist()
        return summed

    def _table(self, named: list[str], found: dict[str, Any], generated: list[Generated]) -> Table:
        columns = ["class", *(f"{name}, eps {figures['eps']:.4g}" for name, figures in found.items()), "draws needed"]
        return Table(
            "Fooling images: success of one step in percent [95 %]",
            columns,
            [
                [
                    name,
                    *(rate_with_interval(f["success"][k], f["interval"][k]) for f in found.values()),
                    str(generated[k].draws) if generated[k].succeeded else f"none in {self.max_draws}",
                ]
                for k, name in enumerate(named)
            ],
        )


def _pictures(
    found: dict[str, Any], generated: list[Generated], named: list[str], module: AdversarialModule, threshold: float
) -> list[Picture]:
    images = torch.cat([one.image for one in generated]).float().cpu()
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        return []
    success, eps = found["sign"]["success"], found["sign"]["eps"]
    hardest = success.index(min(success))
    z = draws(_SHOWN, images.shape[1:], hardest, 0).to(generated[0].image)
    x = fooling_step(module, z, hardest, eps)
    boxed = (class_probability(module, x, hardest) >= threshold).tolist()
    shown = x.float().cpu()
    return [
        Picture(
            "fooling images",
            "An image of each class, generated by repeating draw and step until one succeeds. Framed: success.",
            lambda: plots.image_grid(images, [one.succeeded for one in generated], named),
        ),
        Picture(
            "fooling images of the hardest class",
            f"One step from each of {_SHOWN} draws towards {named[hardest]}, the class with the fewest successes. "
            "Framed: success (figure 5 of the paper).",
            lambda: plots.image_grid(shown, boxed),
        ),
    ]
