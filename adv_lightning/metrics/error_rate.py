"""Error rate, confidence of mistakes, and the probability that mistakes give to wrong classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from adv_lightning.metrics.functional import UNIT, error_count, mistake_confidence, wrong_class_probability


class ErrorRate(Metric):
    """Share of examples whose predicted class is wrong, in [0, 1]; NaN without examples."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    errors: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("errors", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, y: Tensor) -> None:
        """Add examples: predicted classes, int64 [B], and targets, int64 [B]."""
        self.errors += error_count(predicted, y)
        self.total += y.numel()

    def compute(self) -> Tensor:
        """Return errors / n."""
        return self.errors / self.total


class WithoutClass(Metric):
    """Number of examples whose logits are not finite, so that they have no class."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    number: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("number", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor) -> None:
        """Add examples: predicted classes, int64 [B], below 0 for none; see `predicted_classes`."""
        self.number += (predicted < 0).sum()

    def compute(self) -> Tensor:
        """Return the number."""
        return self.number


class _MeanOverMistakes(Metric):
    """Mean of a probability over the misclassified examples; NaN without a mistake.

    An example whose probabilities are NaN has none, and is left out.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    probability: Tensor
    mistakes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probability", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("mistakes", default=torch.tensor(0), dist_reduce_fx="sum")

    def _sum_over_mistakes(self, probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _sum_over_mistakes(probabilities, predicted, y)")

    def update(self, probabilities: Tensor, predicted: Tensor, y: Tensor) -> None:
        """Add examples: probabilities, [B, K], predicted classes, int64 [B], and targets, int64 [B]."""
        self.probability += self._sum_over_mistakes(probabilities, predicted, y)
        known = probabilities.isfinite().all(dim=-1)
        self.mistakes += ((predicted != y) & known).sum()

    def compute(self) -> Tensor:
        """Return summed probability / number of mistakes."""
        return self.probability / self.mistakes / UNIT


class MistakeConfidence(_MeanOverMistakes):
    """Mean over the misclassified examples of the largest probability, in [0, 1]; NaN without a mistake.

    The paper's "average confidence on a misclassified example" (Goodfellow et al. 2015, sections 4 and 6).
    """

    def _sum_over_mistakes(self, probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
        return mistake_confidence(probabilities, predicted, y)


class WrongClassProbability(_MeanOverMistakes):
    """Mean over the misclassified examples of the sum of the probabilities of all classes but y; NaN without a mistake.

    For a softmax it is the mean of 1 - p_y, in [0, 1]; for independent probabilities it can reach K - 1. This is how
    we read the paper's "average probability of 96.6% assigned to the incorrect labels" (Goodfellow et al. 2015,
    section 4, CIFAR-10): over the misclassified examples, like its confidences. With its error of 87.15%, a mean over
    all examples could be 96.6% only if the correctly classified ones gave their own class less than 27% on average.
    """

    def _sum_over_mistakes(self, probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
        return wrong_class_probability(probabilities, predicted, y)
