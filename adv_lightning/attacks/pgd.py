"""Projected gradient descent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adv_lightning.attacks.argument_checks import check_bounds, clip, magnitude, warn_of_short_walk
from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.gradients import (
    LossFn,
    Model,
    check_differentiable_input,
    gradients_enabled,
    input_gradient,
)
from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.attacks.noise import UniformNoise


class PGD(Attack):
    """Projected gradient descent in the max norm: repeated gradient sign steps (Madry et al. 2018, equation 3).

    The last iterate is returned. With a model in eval mode, the random start of an example depends only on `seed` and
    the example itself: results do not change with batch size, order or number of processes, and no global generator
    is touched. With a model in train mode, every call draws new starts from torch's global generator.

    With restarts, each example gets the result of the first run that fools the model, or else of the last run. A
    restart takes only the examples that the model still gets right; finding them takes one forward pass. With a model
    in train mode it takes the whole batch, on which BatchNorm depends.

    Args:
        eps: Radius of the max-norm ball, in the units of the input: a number or a fraction such as 8/255.
        step_size: Size of each step, in the same units. "auto": 2.5 * eps / steps, with which any number of steps can
            cross the ball. Null: a tenth of eps, however many the steps; it was the default before, so settings that
            were stored then still mean what they did.
        steps: Number of steps, each one forward and one backward pass.
        random_start: Start from a point drawn uniformly from the ball instead of from x.
        bounds: Lowest and highest pixel value, to which every iterate is clipped. Null: not clipped.
        seed: Seed of the random start. Restarts use seed + 1, seed + 2, and so on.
        restarts: Number of runs, each from its own random start.

    Raises:
        ValueError: a size is negative or not a number, `steps` or `restarts` is below 1, `bounds` do not increase, or
            `restarts` is above 1 without a random start.

    Warns:
        UserWarning: `steps * step_size` is above 0 and less than `eps`: the edge of the ball is out of reach.

    Example:
        >>> PGD("8/255", steps=10).step_size * 255
        2.0
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
    ) -> None:
        super().__init__()
        self.eps = magnitude("eps", eps)
        if steps < 1:
            raise ValueError(f"steps={steps}: give at least 1")
        self.steps: int = steps
        if step_size is None:
            self.step_size = self.eps / 10
        elif step_size == "auto":
            self.step_size = 2.5 * self.eps / self.steps
        else:
            self.step_size = magnitude("step_size", step_size)
        if restarts < 1:
            raise ValueError(f"restarts={restarts}: give at least 1")
        if restarts > 1 and not random_start:
            raise ValueError(
                f"restarts={restarts}: all runs are equal without a random start; set random_start to true"
            )
        self.random_start = random_start
        self.bounds = check_bounds(bounds)
        self.seed = seed
        self.restarts = restarts
        warn_of_short_walk("PGD", self.eps, self.steps, self.step_size)

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        check_differentiable_input(x)
        x = x.detach()
        x_adv = self._run(model, x, y, loss_fn, self.seed)
        left = torch.arange(len(x), device=x.device)
        for seed in range(self.seed + 1, self.seed + self.restarts):
            if isinstance(model, nn.Module) and model.training:
                right = _is_right(model, x_adv, y)
                x_adv = torch.where(right.view(-1, *[1] * (x.dim() - 1)), self._run(model, x, y, loss_fn, seed), x_adv)
                continue
            left = left[_is_right(model, x_adv[left], y[left])]
            if len(left) == 0:
                break
            x_adv[left] = self._run(model, x[left], y[left], loss_fn, seed)
        return x_adv

    def gradient(self, model: Model, x: Tensor, y: Tensor, loss_fn: LossFn) -> Tensor:
        """Return the gradient that a step follows, as `x`."""
        return input_gradient(model, x, y, loss_fn=loss_fn).grad

    def _run(self, model: Model, x: Tensor, y: Tensor, loss_fn: LossFn, seed: int) -> Tensor:
        x_adv, low, high = x, x - self.eps, x + self.eps
        if self.random_start:
            x_adv = UniformNoise(self.eps, self.bounds, seed)(model, x, y, loss_fn=loss_fn)
        for _ in range(self.steps):
            grad = self.gradient(model, x_adv, y, loss_fn)
            x_adv = torch.add(x_adv, grad.sign().to(x_adv.dtype), alpha=self.step_size).clamp(low, high)
            x_adv = clip(x_adv, self.bounds)
        return x_adv


def _is_right(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Return which examples are classified correctly: bool [B].

    By the model's own `loss_fn.predict`, or else by the largest logit, or the sign of a single one.
    """
    with gradients_enabled(model), torch.no_grad():
        logits = model(private_copy(model, x))
    predict = getattr(getattr(model, "loss_fn", None), "predict", None)
    single = logits.dim() == 1 or logits.shape[1] == 1
    largest = logits.flatten() > 0 if single else logits.argmax(dim=1)
    right = (largest if predict is None else predict(logits)) == y
    nan = logits.isnan()  # where argmax names a class all the same
    return right & ~(nan if logits.dim() == 1 else nan.flatten(1).any(dim=1))
