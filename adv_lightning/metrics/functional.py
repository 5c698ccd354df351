"""What the metrics count, as pure functions of tensors.

Every result is int64, and the results of the parts of a set add up to that of the whole, exactly and in any order.
Sums of probabilities are therefore in fixed point, in units of 1 / UNIT, which also spares devices without float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = 2**24  # the precision of float32


def error_count(predicted: Tensor, y: Tensor) -> Tensor:
    """Return how many predicted classes, int64 [B], differ from targets, int64 [B]: int64 []."""
    return (predicted != y).sum()


def mistake_confidence(probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
    """Return the sum over the misclassified of the largest of the probabilities, [B, K], in units: int64 []."""
    return (_units(probabilities.amax(dim=-1)) * (predicted != y)).sum()


def wrong_class_probability(probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
    """Return the sum over the misclassified of the probabilities, [B, K], of all classes but y, in units: int64 []."""
    # In fixed point before the classes are added up: a float sum may depend on how a batch is laid out.
    others = _units(probabilities).scatter(-1, y.unsqueeze(-1), 0)
    return (others.sum(dim=-1) * (predicted != y)).sum()


def mistake_classes(predicted: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return how many of the misclassified were taken for each class: int64 [num_classes]."""
    return _histogram(predicted, predicted != y, num_classes)


def confidence_histogram(probabilities: Tensor, predicted: Tensor, y: Tensor, bins: int) -> Tensor:
    """Return how often the largest probability falls into each of equal bins of [0, 1]: int64 [2, bins].

    The first row is of the examples classified rightly, the second of the misclassified. Bin k holds what is at least
    k / bins and less than (k + 1) / bins, to the rounding of float32; the last holds 1 too.
    """
    index = (probabilities.amax(dim=-1).float() * bins).long().clamp(0, bins - 1)
    wrong = predicted != y
    return torch.stack([_histogram(index, ~wrong, bins), _histogram(index, wrong, bins)])


def agreement(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Return on how many examples two models predict the same class, and of how many: int64 [2, 3].

    Args:
        a: Classes that the first model predicts, int64 [B].
        b: Classes that the second model predicts for the same examples, int64 [B].
        y: Targets, int64 [B].

    Returns:
        Equal predictions and examples, in three columns: all examples, those on which a errs, those on which both err.
    """
    among = torch.stack([torch.ones_like(y, dtype=torch.bool), a != y, (a != y) & (b != y)])
    return torch.stack([(among & (a == b)).sum(dim=1), among.sum(dim=1)])


def taken_for_a_class(probabilities: Tensor, threshold: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return how many inputs are taken for each class, int64 [num_classes], and their summed confidence, int64 [].

    An input is taken for the class of the largest of its probabilities, [B, K], if that is above `threshold`.
    """
    confidence, predicted = probabilities.float().max(dim=-1)
    taken = confidence > threshold
    return _histogram(predicted, taken, num_classes), (_units(confidence) * taken).sum()


def _units(values: Tensor) -> Tensor:
    # What is not a number has no integer; it counts as 0, and as a mistake it counts all the same.
    return (values.float().nan_to_num(nan=0.0) * UNIT).round().long()


def _histogram(index: Tensor, counted: Tensor, bins: int) -> Tensor:
    empty = torch.zeros(bins, dtype=torch.int64, device=index.device)
    return empty.scatter_add_(0, index, counted.long())
