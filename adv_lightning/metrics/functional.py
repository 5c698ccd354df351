"""The counts behind the metrics, as pure functions of tensors.

Every result is int64. The results for the parts of a set add up to the result for the whole, exactly and in any order.
This is why sums of probabilities are in fixed point, in units of 1 / UNIT. It also avoids float64, which some devices
lack.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = 2**24  # the precision of float32


def error_count(predicted: Tensor, y: Tensor) -> Tensor:
    """Return how many predicted classes, int64 [B], differ from targets, int64 [B], as int64 []."""
    return (predicted != y).sum()


def mistake_confidence(probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
    """Return the sum over misclassified examples of their largest probability, of [B, K], int64 [].

    In units of 1 / UNIT.
    """
    return (_units(probabilities.amax(dim=-1)) * (predicted != y)).sum()


def wrong_class_probability(probabilities: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
    """Return the sum over misclassified examples of the probabilities, [B, K], of all classes but y, int64 [].

    In units of 1 / UNIT.
    """
    # Fixed point before the sum over classes: a float sum may depend on the memory layout of the batch.
    known = probabilities.isfinite().all(dim=-1, keepdim=True)
    others = _units(probabilities.where(known, 0)).scatter(-1, y.unsqueeze(-1), 0)
    return (others.sum(dim=-1) * (predicted != y)).sum()


def mistake_classes(predicted: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return how many misclassified examples were predicted as each class, int64 [num_classes].

    A class below 0 is none, and is not counted.
    """
    return _histogram(predicted.clamp(min=0), (predicted != y) & (predicted >= 0), num_classes)


def confidence_histogram(probabilities: Tensor, predicted: Tensor, y: Tensor, bins: int) -> Tensor:
    """Return how often the largest probability falls into each of equal bins of [0, 1], int64 [2, bins].

    The first row counts correctly classified examples, the second misclassified ones. Bin k holds values from k / bins
    to below (k + 1) / bins, up to the rounding of float32; the last bin also holds 1.
    """
    index = (probabilities.amax(dim=-1).float().nan_to_num(nan=0.0) * bins).long().clamp(0, bins - 1)
    wrong = predicted != y
    return torch.stack([_histogram(index, ~wrong, bins), _histogram(index, wrong, bins)])


def agreement(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """Count the examples on which two models predict the same class, int64 [2, 3].

    Args:
        a: Predicted classes of the first model, int64 [B].
        b: Predicted classes of the second model for the same examples, int64 [B].
        y: Targets, int64 [B].

    Returns:
        Equal predictions and examples, in three columns: all examples, those that a gets wrong, those that both do.
        Classes below 0 are none, and equal no other.
    """
    among = torch.stack([torch.ones_like(y, dtype=torch.bool), a != y, (a != y) & (b != y)])
    return torch.stack([(among & (a == b) & (a >= 0)).sum(dim=1), among.sum(dim=1)])


def taken_for_a_class(probabilities: Tensor, threshold: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return how many inputs are assigned to each class, int64 [num_classes], and their summed confidence, int64 [].

    An input is assigned to the class of its largest probability, of [B, K], if that is above `threshold`, or NaN: a
    network that returns no number has not refused the input. The sum is in units of 1 / UNIT.
    """
    confidence, predicted = probabilities.float().max(dim=-1)
    taken = ~(confidence <= threshold)
    return _histogram(predicted, taken, num_classes), (_units(confidence) * taken).sum()


def _units(values: Tensor) -> Tensor:
    # NaN has no integer value, so it adds 0. The example still counts as a mistake.
    return (values.float().nan_to_num(nan=0.0) * UNIT).round().long()


def _histogram(index: Tensor, counted: Tensor, bins: int) -> Tensor:
    empty = torch.zeros(bins, dtype=torch.int64, device=index.device)
    return empty.scatter_add_(0, index, counted.long())
