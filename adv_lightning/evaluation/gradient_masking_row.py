"""A row of results as the checks for masked gradients see it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adv_lightning.attacks.description import as_call
from adv_lightning.evaluation.row_threat_model import full_description, threat_model_of

_CLOSE = 1e-9
"""Relative size of rounding."""
_WALK = ("steps", "step_size", "seed", "restarts")
"""Arguments in which two runs of one iterated attack may differ."""


class MaskingRow:
    """A row of results, and what its attack's threat model means for a comparison.

    Args:
        row: `{name, attack, error, interval, n}` and the attack's threat model.
        unit_range: Whether the inputs lie in [0, 1].
    """

    def __init__(self, row: Mapping[str, Any], unit_range: bool) -> None:
        self.error, self.n = float(row["error"]), int(row["n"])
        self.low, self.high = (float(end) for end in row["interval"])
        self.is_clean = row["attack"] is None
        self.threat_model = threat_model_of(row)
        self._description = {} if self.is_clean else full_description(row)
        self._arguments: dict[str, Any] = self._description.get("init_args") or {}
        ball = self.threat_model.ball
        self.ball = None if ball is None else replace(ball, eps=float(f"{ball.eps:.9g}"))  # 0.1 + 0.2 is 0.3
        self._range = 1.0 if unit_range else math.nan

    def __str__(self) -> str:
        where = "on clean examples" if self.is_clean else f"under {as_call(self._description)}"
        return f"{self.error:.2%} [{self.low:.2%}, {self.high:.2%}] {where}, n={self.n}"

    @property
    def share(self) -> float:
        """Eps as a share of the range of the pixels; NaN if either is unknown, or in another norm than the max norm."""
        if self.ball is None or self.ball.norm != math.inf:
            return math.nan
        bounds = self.ball.bounds
        return self.ball.eps / (self._range if bounds is None else bounds[1] - bounds[0])

    @property
    def is_single_step(self) -> bool:
        """Whether it is one white-box step away from the label, to the edge of a ball, as FGSM is."""
        return self._is_white_box and self.threat_model.steps == 1 and self.can_cross

    @property
    def is_iterated(self) -> bool:
        """Whether it is several white-box steps away from the label, in a ball, as PGD is."""
        return self._is_white_box and self.threat_model.steps is not None and self.threat_model.steps > 1

    @property
    def is_blind(self) -> bool:
        """Whether it stays in a ball and asks nothing of the model judged, as noise and transfer do."""
        asks = self._argument("queries", 0) > 0
        return self.ball is not None and self.threat_model.uses_gradient is False and not asks

    @property
    def averages(self) -> bool:
        """Whether each step follows the mean of several gradients, as EOTPGD's do."""
        return self._argument("samples", 1) > 1

    @property
    def can_cross(self) -> bool:
        """Whether its steps lead from where it starts to any point of the ball."""
        if self.ball is None or self.threat_model.reach is None:
            return False
        return self.threat_model.reach >= self.ball.eps * (1 - _CLOSE)

    @property
    def _is_white_box(self) -> bool:
        return (
            self.ball is not None and self.threat_model.uses_label is True and self.threat_model.uses_gradient is True
        )

    def shares_ball(self, other: MaskingRow) -> bool:
        """Whether both stay in the same ball: of one norm, eps and bounds."""
        return self.ball is not None and self.ball == other.ball

    def is_weaker(self, other: MaskingRow) -> bool:
        """Whether its interval lies wholly below the other's."""
        return self.high < other.low

    def is_larger(self, other: MaskingRow) -> bool:
        """Whether it is the same attack at a larger eps."""
        if self.ball is None or other.ball is None or self._rest() != other._rest():
            return False
        return self.ball.eps > other.ball.eps and replace(self.ball, eps=other.ball.eps) == other.ball

    def is_longer(self, other: MaskingRow) -> bool:
        """Whether it is the same iterated attack with more but no longer steps, which lead as far, as often."""
        if not self.shares_ball(other) or self._rest(*_WALK) != other._rest(*_WALK):
            return False
        (a, far_a), (b, far_b) = ((row.threat_model.steps or 0, row.threat_model.reach) for row in (self, other))
        as_far = far_a is None or far_b is None or far_a >= far_b - _CLOSE * abs(far_b)
        as_fine = self._argument("step_size", 0) <= other._argument("step_size", 0)
        return a > b and as_far and as_fine and self._argument("restarts", 1) >= other._argument("restarts", 1)

    def _argument(self, name: str, default: float) -> float:
        value = self._arguments.get(name)
        return float(value) if isinstance(value, int | float) else default

    def _rest(self, *left_out: str) -> str:
        """Return, as text, the description without the ball's size and some further arguments."""
        rest = {name: value for name, value in self._arguments.items() if name not in ("eps", "bounds", *left_out)}
        return json.dumps([self._description.get("class_path"), rest], default=str, sort_keys=True)
