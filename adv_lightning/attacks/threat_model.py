"""What an attack says about itself, so that checks and reports need not know its class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self


@dataclass(frozen=True)
class Ball:
    """The Lp ball around the clean input that contains an attack's result.

    Args:
        norm: p, at least 1: `math.inf` for the max norm, 2 for the Euclidean norm, 1 for the sum of magnitudes.
        eps: Radius, in the units of the input.
        bounds: Lowest and highest pixel value, to which the result is clipped. None: not clipped.
    """

    norm: float
    eps: float
    bounds: tuple[float, float] | None = None

    @property
    def norm_name(self) -> str:
        """The norm in a word: "Linf", "L2" or "L1"."""
        return f"L{self.norm:g}"

    @classmethod
    def read(cls, eps: Any, norm: Any = math.inf, bounds: Any = None) -> Self | None:
        """Build a ball from attributes of any type; None unless eps, norm and bounds are as below.

        Args:
            eps: A finite number >= 0.
            norm: A number >= 1, or its name, such as "Linf" or "l2".
            bounds: Two numbers, or None.
        """
        try:
            p = float(str(norm).lower().removeprefix("l"))
            pixels = None if bounds is None else tuple(map(float, bounds))
        except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
            return None
        if not isinstance(eps, Real) or isinstance(eps, bool) or not 0 <= float(eps) < math.inf:
            return None
        if not p >= 1 or (pixels is not None and len(pixels) != 2):
            return None
        return cls(p, float(eps), None if pixels is None else (pixels[0], pixels[1]))


@dataclass(frozen=True)
class ThreatModel:
    """What checks and reports need to know about an attack. None means unknown; for the ball, unknown or no ball.

    Args:
        ball: The ball that contains its result.
        uses_label: Whether it looks at the true labels.
        uses_gradient: Whether it follows the gradient of the model it is called with.
        steps: Number of steps it takes.
        reach: How far its steps can lead from the clean input, in the norm of the ball.
    """

    ball: Ball | None = None
    uses_label: bool | None = None
    uses_gradient: bool | None = None
    steps: int | None = None
    reach: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain data, by name."""
        ball = self.ball
        bounds = None if ball is None or ball.bounds is None else list(ball.bounds)
        return {
            "ball": None if ball is None else {"norm": ball.norm_name, "eps": ball.eps, "bounds": bounds},
            "uses_label": self.uses_label,
            "uses_gradient": self.uses_gradient,
            "steps": self.steps,
            "reach": self.reach,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned; other keys are ignored."""
        ball = data["ball"]
        names = ("uses_label", "uses_gradient", "steps", "reach")
        return cls(None if ball is None else Ball.read(**ball), **{name: data[name] for name in names})
