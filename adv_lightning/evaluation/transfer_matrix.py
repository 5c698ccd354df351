"""Counts of which networks are fooled by examples crafted on which, and whether they predict the same class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from adv_lightning.metrics import Agreement, ErrorRate, MistakeConfidence, WithoutClass, wilson_interval

CLEAN = "clean"
"""Stands for the source network of clean examples, which are crafted on none."""

_AMONG = ("all", "a_errs", "both_err")  # in the order of `Agreement`


class TransferMatrix:
    """Counts how k networks classify the examples crafted on each of them, and the clean ones.

    Args:
        names: A name for each network.
        device: Device of the counts.
    """

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.names = list(names)
        cells = [(source, judged) for source in (CLEAN, *names) for judged in names]
        self._errors = {cell: ErrorRate().to(device) for cell in cells}
        self._confidences = {cell: MistakeConfidence().to(device) for cell in cells}
        self._not_finite = {cell: WithoutClass().to(device) for cell in cells}
        triples = [(source, a, b) for source in names for a, b in permutations(names, 2)]
        self._agreements = {triple: Agreement().to(device) for triple in triples}

    def add(self, source: str, predicted: Mapping[str, Tensor], probabilities: Mapping[str, Tensor], y: Tensor) -> None:
        """Count a batch of examples.

        Args:
            source: Name of the network that the examples are crafted on, or `CLEAN`.
            predicted: The class that each network predicts, int64 [B], by name.
            probabilities: The probabilities that each network gives, [B, K], by name.
            y: Targets, int64 [B].
        """
        for name in self.names:
            self._errors[source, name].update(predicted[name], y)
            self._not_finite[source, name].update(predicted[name])
            self._confidences[source, name].update(probabilities[name], predicted[name], y)
        for a, b in permutations(self.names, 2) if source != CLEAN else ():
            self._agreements[source, a, b].update(predicted[a], predicted[b], y)

    def errors(self) -> list[dict[str, Any]]:
        """Return a row for each cell.

        Keys: `crafted_on`, `judged`, `error`, `interval` (Wilson, 95 %), `n`, `confidence_on_mistakes`, which is None
        without a mistake, and `not_finite`, the number of examples whose logits are not finite, if there are any.
        """
        rows = []
        for (source, judged), error in self._errors.items():
            confidence = self._confidences[source, judged].compute().item()
            with error.sync_context():
                count, n = int(error.errors), int(error.total)
            rows.append(
                {"crafted_on": source, "judged": judged}
                | _counted("error", count, n)
                | {"confidence_on_mistakes": None if math.isnan(confidence) else confidence}
                | ({"not_finite": strange} if (strange := int(self._not_finite[source, judged].compute())) else {})
            )
        return rows

    def agreements(self) -> list[dict[str, Any]]:
        """Return, for each source network and ordered pair, a row with how often b predicts a's class.

        Keys: `crafted_on`, `a`, `b`, and the counts among `all` examples, among those on which `a_errs`, and among
        those on which `both_err`: each has `share` (None without such examples), `interval` (Wilson, 95 %) and `n`.
        """
        rows: list[dict[str, Any]] = []
        for (source, a, b), agreement in self._agreements.items():
            with agreement.sync_context():
                equal, total = agreement.equal.tolist(), agreement.total.tolist()
            counts = zip(_AMONG, equal, total, strict=True)
            rows.append(
                {"crafted_on": source, "a": a, "b": b} | {among: _counted("share", k, n) for among, k, n in counts}
            )
        return rows


def check_names(names: Sequence[str]) -> list[str]:
    """Return the names of networks as a list.

    Raises:
        ValueError: there are fewer than two, two are equal, or one is empty or "clean".
    """
    if len(names) < 2:
        raise ValueError(f"cannot compare {len(names)} network{'s' if len(names) != 1 else ''}: give at least two")
    if len(set(names)) < len(names):
        raise ValueError(f"names has duplicates, {', '.join(names)}: give each network a different name")
    if not all(names) or CLEAN in names:
        raise ValueError(f"names are {', '.join(names)}: no name may be empty or {CLEAN!r}, which names another row")
    return list(names)


def _counted(name: str, count: int, n: int) -> dict[str, Any]:
    """Return a share with its interval and n; share and interval are None if n is 0."""
    return {
        name: count / n if n else None,
        "interval": list(wilson_interval(count, n)) if n else None,
        "n": n,
    }
