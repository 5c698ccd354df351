"""How often the network takes rubbish inputs for a class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from adv_lightning.attacks import FGSM
from adv_lightning.attacks.argument_checks import magnitude
from adv_lightning.data.seeding import mix_seed
from adv_lightning.evaluation import plots
from adv_lightning.evaluation.attack_counts import number_of_classes
from adv_lightning.evaluation.default_attacks import left_out, max_norm_ball
from adv_lightning.evaluation.evaluator import Evaluator, class_names
from adv_lightning.evaluation.report_section import Picture, Section, Table, percent, rate_with_interval
from adv_lightning.metrics import RubbishRate, wilson_interval
from adv_lightning.module import AdversarialModule

Kind = Literal["gaussian", "uniform", "attacked"]
CHUNK = 100
"""Number of draws from one generator, so that results do not change with the number of processes."""
_HALF_PRECISION = 0.02
_DISTRIBUTIONS = {"gaussian": "N(0, I)", "uniform": "U(0, 1)"}


class RubbishTest(Evaluator):
    """Shows the network inputs of no class, and counts how many it takes for a class.

    An input is taken for a class if one of its probabilities is above `threshold` (Goodfellow et al. 2015, appendix A,
    with 10,000 draws from N(0, I)). Logged as `test/rubbish_error`, `test/rubbish_uniform_error` and
    `test/rubbish_attacked_error`.

    Args:
        samples: Number of inputs of each kind, at least 1.
        kinds: "gaussian" draws from N(0, I) in the shape of the data; "uniform" draws each value from U(0, 1);
            "attacked" takes a step x + eps * sign(gradient) from draws of N(0, I), which increases the loss of the
            answer "no class at all".
        eps: Size of that step. Null: the eps of the module's `val_attack`; without one in the max norm, this kind is
            left out.
        threshold: In [0, 1].

    Raises:
        ValueError: `samples` is below 1, a kind is unknown, or `threshold` is outside [0, 1].
    """

    def __init__(
        self,
        samples: int = 10_000,
        kinds: list[Kind] | None = None,
        eps: float | str | None = None,
        threshold: float = 0.5,
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples={samples!r}: give at least 1")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold!r}: give a probability, from 0 to 1")
        self.kinds: list[Kind] = ["gaussian"] if kinds is None else kinds
        if unknown := set(self.kinds) - set(get_args(Kind)):
            raise ValueError(f"kinds has {sorted(unknown)}: give some of {', '.join(get_args(Kind))}")
        self.samples = samples
        self.eps = None if eps is None else magnitude("eps", eps)
        self.threshold = threshold

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        self._shape: torch.Size | None = None
        self._classes = 0
        self._shares_one = False
        ball = max_norm_ball(module.val_attack)
        eps = self.eps if self.eps is not None or ball is None else ball.eps
        self._step = None if eps is None else FGSM(eps)

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        self._shape = x.shape[1:]

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        self._shape = trainer.strategy.broadcast(self._shape)
        if self._shape is None:  # there were no examples
            return Section("Rubbish")
        kinds = [kind for kind in self.kinds if kind != "attacked" or self._step is not None]
        rows = [self._row(kind, trainer, module) for kind in kinds]
        notes = (
            []
            if len(kinds) == len(self.kinds)
            else [left_out('The rubbish kind "attacked"', "callbacks.rubbish_test.eps")]
        )
        if self._shares_one and self._classes == 2 and self.threshold <= 0.5:
            notes.append("One of two classes always has a probability of at least 1/2: look at the confidence instead.")
        return Section(
            "Rubbish",
            f"Inputs of no class in the shape of the data, {list(self._shape)}. An input counts as an error if any "
            f"class has a probability above {self.threshold:g}.",
            tables=[
                Table("Rubbish taken for a class; in percent", ["inputs", "n", "error [95 %]", "conf."], _cells(rows))
            ]
            if rows
            else [],
            notes=notes,
            pictures=_skew(rows, trainer),
            rows=rows,
        )

    def _row(self, kind: Kind, trainer: Trainer, module: AdversarialModule) -> dict[str, Any]:
        rate: RubbishRate | None = None
        for noise in chunks(self.samples, trainer, self._shape or torch.Size([]), kind == "uniform"):
            x = trainer.precision_plugin.convert_input(noise).to(module.device)
            if kind == "attacked":
                assert self._step is not None
                x = self._step(
                    module, x, torch.zeros(len(x)), loss_fn=lambda logits, y: module.loss_fn.no_class(logits)
                )
            logits = module(x)
            self._classes = number_of_classes(logits, module.loss_fn)
            rate = rate or RubbishRate(self._classes, self.threshold).to(module.device)
            probabilities = module.loss_fn.probabilities(logits)
            sums = probabilities.float().sum(dim=1)
            self._shares_one = bool(((sums - 1).abs() < _HALF_PRECISION).all())
            rate.update(probabilities)
        assert rate is not None
        error = rate.compute().item()
        name = "_".join(["rubbish", *([] if kind == "gaussian" else [kind]), "error"])
        module.log(f"{self.stage}/{name}", error, sync_dist=True)
        with rate.sync_context():
            taken, n = int(rate.taken.sum()), int(rate.total)
            confidence, classes = rate.confidence().item(), rate.classes().tolist()
        described = {"distribution": _DISTRIBUTIONS.get(kind, "N(0, I)"), "threshold": self.threshold, "seed": 0}
        if kind == "attacked":
            assert self._step is not None
            described["step"] = {"attack": self._step.config(), "loss": "no class"}
        return {
            "name": "rubbish" if kind == "gaussian" else f"rubbish, {kind}",
            "attack": None,
            "rubbish": described,
            "error": error,
            "interval": list(wilson_interval(taken, n)),
            "confidence_on_mistakes": None if math.isnan(confidence) else confidence,
            "classes": None if error == 0 else classes,
            "n": n,
        }


def chunks(samples: int, trainer: Trainer, shape: torch.Size, uniform: bool = False) -> Iterator[Tensor]:
    """Yield this process's part of `samples` draws from N(0, I), or U(0, 1), in float32 on the CPU.

    A process without draws yields an empty chunk, so that every process runs the network at least once.
    """
    number = -(-samples // CHUNK)
    if trainer.global_rank >= number:
        yield torch.empty(0, *shape)
    for i in range(trainer.global_rank, number, trainer.world_size):
        generator = torch.Generator().manual_seed(mix_seed(0, i))
        draws = torch.empty(min(CHUNK, samples - i * CHUNK), *shape)
        yield draws.uniform_(generator=generator) if uniform else draws.normal_(generator=generator)


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            _name(row["rubbish"]),
            str(row["n"]),
            rate_with_interval(row["error"], row["interval"]),
            percent(row["confidence_on_mistakes"]),
        ]
        for row in rows
    ]


def _name(described: dict[str, Any]) -> str:
    step = described.get("step")
    eps = "" if step is None else f" + {step['attack']['init_args']['eps']:.4g} * sign(gradient)"
    return f"{described['distribution']}{eps}"


def _skew(rows: list[dict[str, Any]], trainer: Trainer) -> list[Picture]:
    names = class_names(trainer)
    taken = {
        _name(row["rubbish"]): [round(share * row["error"] * row["n"]) for share in row["classes"]]
        for row in rows
        if row["classes"]
    }
    caption = "The classes that rubbish was taken for. The dashed line shows equal shares."
    return [Picture("rubbish by class", caption, lambda: plots.class_bars(taken, names))] if taken else []
