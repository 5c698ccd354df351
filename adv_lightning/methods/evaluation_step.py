"""One evaluation step: predictions of a batch, clean and under attack, counted over the epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from adv_lightning.attacks.base import Attack, SingleStepAttack
from adv_lightning.attacks.gradients import check_scalar, input_gradient
from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.data.sample_limit import ClassShares, within_limit
from adv_lightning.losses import Loss, predicted_classes
from adv_lightning.methods.input_checks import BatchCheck
from adv_lightning.metrics.epoch_metrics import EpochMetrics
from adv_lightning.metrics.judged_examples import JudgedExamples


class Judged(Protocol):
    """What is evaluated: a network with its loss. It is an `nn.Module` too; `AdversarialModule` is one."""

    loss_fn: Loss

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits, [B, K]."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return J, the mean loss over the batch, a scalar."""


class EvaluationStep(nn.Module):
    """Counts the mistakes of an evaluation epoch.

    Attributes:
        metrics: The counts so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.metrics = EpochMetrics()
        self._seen = 0
        self._samples: int | None = None
        self._shares = ClassShares()
        self._clean_examples = JudgedExamples()
        self._attacked_examples = JudgedExamples()

    def warn_of_shares(self) -> None:
        """Warn if the examples that were attacked do not have the classes of all."""
        if self._samples is not None:
            self._shares.warn(f"val_attack_samples={self._samples}")

    def forward(
        self,
        model: Judged,
        x: Tensor,
        y: Tensor,
        attack: Attack | None,
        *,
        part: Callable[[slice], tuple[Tensor, Tensor]],
        first: bool,
        samples: int | None = None,
        rank: int = 0,
        processes: int = 1,
        trained: bool = True,
    ) -> dict[str, Tensor]:
        """Count one batch.

        Args:
            model: What is evaluated.
            x: Inputs, [B, ...].
            y: Labels, int64 [B].
            attack: Perturbs the inputs. None: only clean inputs are counted.
            part: Rows -> (x, y) of these examples, for a network that keeps a second input with a row for each.
            first: Whether this is the first batch of the epoch, which resets the counts.
            samples: Attack only the first so many examples of the epoch, over all processes. None: all.
            rank: Number of this process.
            processes: Number of processes.
            trained: Whether the network may be expected to have a gradient. Weights that start at zero have none.

        Returns:
            `logits`, [B, K], and `adv_logits`, those of the attacked examples.

        Raises:
            ValueError: inputs, labels or logits are not what they must be; see `BatchCheck`.
        """
        assert isinstance(model, nn.Module)
        if first:
            self._seen, self._shares = 0, ClassShares()
            self._samples = None if attack is None else samples
            self.metrics.reset()
            self._clean_examples.reset()
            self._attacked_examples.reset()
        n = 0 if attack is None else within_limit(samples, rank, processes, self._seen, len(x))
        self._seen += len(x)
        before = _changes(model) if first and attack is not None else {}
        with BatchCheck(model, x, y, attack, model.loss_fn, first=first, judged=True, moved=trained):
            if attack is None or n == 0:
                logits = _logits(model, x)
                adv_logits = logits[:0]
            else:
                taken = (x, y) if n == len(x) else part(slice(n))
                logits, adv_logits = judge(model, *taken, attack)
                if n < len(x):
                    logits = torch.cat([logits, _logits(model, part(slice(n, None))[0])])
        _warn_of_moves(before, model)
        loss = check_scalar(model.loss(logits.clone(), y.clone()))  # it may work in place
        self.metrics.add(predicted_classes(model.loss_fn, logits), y, loss)
        self._clean_examples.update(x, y)
        if self._samples is not None and isinstance(y, Tensor):
            self._shares.add(y, n, logits.shape[1] if logits.dim() > 1 and logits.shape[1] > 1 else 2)
        if attack is not None:
            probabilities = model.loss_fn.probabilities(adv_logits)
            self.metrics.add_attacked(predicted_classes(model.loss_fn, adv_logits), probabilities, y[:n])
            self._attacked_examples.update(x[:n], y[:n])
        return {"logits": logits, "adv_logits": adv_logits}

    def examples(self) -> dict[str, str]:
        """Return the fingerprints of the examples since the first batch: all of them, and the attacked ones.

        Every process must ask. A text is "" where there were none; see `JudgedExamples`.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``compute`` method of metric JudgedExamples")  # none in this process
            return {"clean": self._clean_examples.compute(), "attacked": self._attacked_examples.compute()}


def _changes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return which tensors a network holds, and how often each was changed in place, by name."""
    held = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(tensor), tensor._version) for name, tensor in held if not tensor.is_inference()}


def _warn_of_moves(before: dict[str, tuple[int, int]], model: nn.Module) -> None:
    after = _changes(model) if before else {}
    if moved := [name for name, now in after.items() if before.get(name, now) != now]:
        rank_zero_warn(
            f"{moved[0]}, of {len(moved)} tensors of the network, changes in eval mode. Attacks change it too, so the "
            "figures depend on what was judged before. Change it only where self.training is true"
        )


def judge(model: Judged, x: Tensor, y: Tensor, attack: Attack) -> tuple[Tensor, Tensor]:
    """Return the logits, [B, K], of the inputs and of the inputs under attack.

    A single-step attack's own clean pass gives the first.
    """
    if isinstance(attack, SingleStepAttack) and attack.needs_grad:
        clean = input_gradient(model, x, y, loss_fn=model.loss)
        logits, x_adv = clean.logits, attack.step(x, clean.grad)
    else:
        logits, x_adv = _logits(model, x), attack(model, x, y, loss_fn=model.loss)
    return logits, _logits(model, x_adv)


def _logits(model: Judged, x: Tensor) -> Tensor:
    """Return the logits of inputs on which the model must not work in place, as the attack or a count needs them."""
    return model(private_copy(model, x))
