"""Who is fooled by examples crafted on whom, and whether they are taken for the same class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from adv_lightning.metrics import Agreement, ErrorRate, MistakeConfidence, wilson_interval

CLEAN = "clean"
"""What the examples are crafted on that are not crafted at all."""

_AMONG = ("all", "a_errs", "both_err")  # as `Agreement` counts them


class TransferMatrix:
    """Counts how k networks judge the examples that were crafted on each of them, and the clean ones.

    Args:
        names: A name for each network.
        device: Where the counts are kept.
    """

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.names = list(names)
        cells = [(source, judged) for source in (CLEAN, *names) for judged in names]
        self._errors = {cell: ErrorRate().to(device) for cell in cells}
        self._confidences = {cell: MistakeConfidence().to(device) for cell in cells}
        triples = [(source, a, b) for source in names for a, b in permutations(names, 2)]
        self._agreements = {triple: Agreement().to(device) for triple in triples}

    def add(self, source: str, predicted: Mapping[str, Tensor], probabilities: Mapping[str, Tensor], y: Tensor) -> None:
        """Count a batch of examples.

        Args:
            source: Name of the network that the examples were crafted on, or `CLEAN`.
            predicted: The class that each network predicts, int64 [B], by name.
            probabilities: The probabilities that each network gives, [B, K], by name.
            y: Targets, int64 [B].
        """
        for name in self.names:
            self._errors[source, name].update(predicted[name], y)
            self._confidences[source, name].update(probabilities[name], predicted[name], y)
        for a, b in permutations(self.names, 2) if source != CLEAN else ():
            self._agreements[source, a, b].update(predicted[a], predicted[b], y)

    def errors(self) -> list[dict[str, Any]]:
        """Return a row for each cell: `crafted_on`, `judged`, `error`, `interval` (Wilson, 95 %), `n`,
        `confidence_on_mistakes` (None where there are none).
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
            )
        return rows

    def agreements(self) -> list[dict[str, Any]]:
        """Return a row for each network and ordered pair: `crafted_on`, `a`, `b`, and how often b predicts a's class.

        That is among `all` examples, those on which `a_errs` and those on which `both_err`, each with `share` (None
        where there are no such examples), `interval` (Wilson, 95 %) and `n`.
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
    """Return names of networks.

    Raises:
        ValueError: there are less than two, equal ones, or one is empty or "clean".
    """
    if len(names) < 2:
        raise ValueError(f"there is nothing to compare, with {len(names)} of them: give at least two networks")
    if len(set(names)) < len(names):
        raise ValueError(f"names are {', '.join(names)}: give each network a name of its own")
    if not all(names) or CLEAN in names:
        raise ValueError(f"names are {', '.join(names)}: none may be empty or {CLEAN!r}, which names a row")
    return list(names)


def _counted(name: str, count: int, n: int) -> dict[str, Any]:
    """Return a share with its interval and n, None where n is 0."""
    return {
        name: count / n if n else None,
        "interval": list(wilson_interval(count, n)) if n else None,
        "n": n,
    }
