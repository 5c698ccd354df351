"""Projected gradient descent on a network with random answers."""

from __future__ import annotations

import torch
from torch import Tensor

from adv_lightning.attacks.gradients import LossFn, Model, input_gradient
from adv_lightning.attacks.pgd import PGD


class EOTPGD(PGD):
    """PGD along the mean of several gradients, for networks that draw at random (expectation over transformation,
    Athalye, Carlini & Wagner 2018, section 4.2, arXiv:1802.00420). On a network that does not draw it equals PGD.

    The network draws from its own generator, as a rule torch's global one.

    Args:
        eps: Radius of the max-norm ball, in the units of the input: a number or a fraction such as 8/255.
        step_size: Size of each step, in the same units. "auto": 2.5 * eps / steps. Null: a tenth of eps.
        steps: Number of steps.
        random_start: Start from a point drawn uniformly from the ball instead of from x.
        bounds: Lowest and highest pixel value, to which every iterate is clipped. Null: not clipped.
        seed: Seed of the random start.
        restarts: Number of runs, each from its own random start.
        samples: Number of gradients in each step, each one forward and one backward pass.

    Raises:
        ValueError: as of `PGD`, or `samples` is below 1.
    """

    def __init__(
        self,
        eps: float | str,
        step_size: float | str | None = "auto",
        steps: int = 40,
        random_start: bool = True,
        bounds: tuple[float, float] | None = None,
        seed: int = 0,
        restarts: int = 1,
        samples: int = 10,
    ) -> None:
        super().__init__(eps, step_size, steps, random_start, bounds, seed, restarts)
        if samples < 1:
            raise ValueError(f"samples={samples}: give at least 1")
        self.samples = samples

    def gradient(self, model: Model, x: Tensor, y: Tensor, loss_fn: LossFn) -> Tensor:
        drawn = [input_gradient(model, x, y, loss_fn=loss_fn).grad for _ in range(self.samples)]
        return torch.stack(drawn).mean(dim=0)
