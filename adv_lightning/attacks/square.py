"""The Square attack: a random search that needs no gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adv_lightning.attacks.argument_checks import check_bounds, clip, magnitude
from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.gradients import LossFn, Model, check_differentiable_input, gradients_enabled
from adv_lightning.attacks.margin import margin
from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.attacks.noise import draws_of_each

_FIRST_SHARE = 0.8
_HALVED_AFTER = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries after which the windows have half the area of before, from the paper's section 3.3."""


class Square(Attack):
    """Random search in the max norm: sets a random window to x + eps or x - eps, and keeps what does not make the
    right answer surer (Andriushchenko et al. 2020, algorithm 2, arXiv:1912.00049). It sees logits alone.

    It starts from random vertical stripes. Windows are squares of the image, with one sign for each channel, and
    shrink as the search goes on. Inputs that are no images, [B, D], get random sets of components instead. What it
    lowers is the logit of the true class less the largest other one; for a single logit, the logit of the true side.
    It takes only the examples that are still classified correctly, or with a model in train mode, where BatchNorm
    depends on it, the whole batch. A misclassified input stays as it is.

    With a model in eval mode, the search on an example depends only on `seed` and the example itself: results do not
    change with batch size, order or number of processes, and no global generator is touched. With a model in train
    mode, every call draws anew.

    Args:
        eps: Radius of the max-norm ball, in the units of the input: a number or a fraction such as 8/255.
        queries: Number of forward passes for an example, besides the one of the clean input.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of the search.

    Raises:
        ValueError: eps is negative or not a number, `queries` is below 1, or `bounds` do not increase.
    """

    uses_gradient = False

    def __init__(
        self, eps: float | str, queries: int = 300, bounds: tuple[float, float] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.eps = magnitude("eps", eps)
        if queries < 1:
            raise ValueError(f"queries={queries}: give at least 1")
        self.queries = queries
        self.bounds = check_bounds(bounds)
        self.seed = seed

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        check_differentiable_input(x)
        if len(x) == 0:
            return x.detach()
        anew = isinstance(model, nn.Module) and model.training
        shape = x.shape[1:] if x.dim() == 4 else (1, 1, x[0].numel())
        with gradients_enabled(model), torch.no_grad():
            x, y = x.detach().clone(), y.clone()
            search = _Search(x, shape, self.queries, int(torch.randint(2**31, ())) if anew else self.seed)
            logits = model(private_copy(model, x))
            scores = _scores_of(model, logits)
            x_adv, sure = x.clone(), margin(scores(logits), y)
            for query in range(self.queries):
                right = sure > 0
                if not right.any():
                    break
                left = torch.arange(len(x), device=x.device) if anew else right.nonzero().flatten()
                where, side = search.window(query, left)
                moved = clip(x[left] + self.eps * side.to(x.dtype), self.bounds)
                found = torch.where(where, moved, x_adv[left])
                now = margin(scores(model(private_copy(model, found))), y[left])
                # Equal is kept too: on a plateau the search goes on from somewhere else.
                kept = ((now <= sure[left]) | (query == 0)) & right[left]
                sure[left] = torch.where(kept, now, sure[left])
                x_adv[left] = torch.where(kept.view(-1, *[1] * (x.dim() - 1)), found, x_adv[left])
        return x_adv


def _scores_of(model: Model, logits: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what makes scores of logits, of which the largest names the class: the logits themselves, in general.

    Where the model's `loss_fn` predicts other classes, as of distances, they are the logarithms of its probabilities.
    """
    loss: Any = getattr(model, "loss_fn", None)
    if not hasattr(loss, "predict") or logits.dim() == 1 or logits.shape[1] == 1:
        return lambda logits: logits
    if torch.equal(loss.predict(logits), logits.argmax(dim=1)):
        return lambda logits: logits
    return lambda logits: loss.probabilities(logits).log()


class _Search:
    """All random draws of the examples of a batch, and the windows that follow from them.

    Args:
        x: Inputs, [B, ...].
        shape: Channels, height and width.
        queries: Number of windows.
        seed: Seed of the draws.
    """

    def __init__(self, x: Tensor, shape: tuple[int, ...], queries: int, seed: int) -> None:
        self._shape, self._queries, self._like = shape, queries, x
        channels, height, width = shape
        numbers = [channels * width, queries * (2 + channels), width if height == 1 else 0]
        drawn = draws_of_each(x.float(), seed, lambda example, generator: torch.rand(sum(numbers), generator=generator))
        stripes, windows, order = torch.split(drawn, numbers, dim=1)
        self._stripes = stripes.view(-1, channels, 1, width)
        self._windows = windows.view(-1, queries, 2 + channels)
        self._rank = order.argsort(dim=1).argsort(dim=1) if height == 1 else None

    def window(self, query: int, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the inputs of these examples change, bool, and to which side, 1 or -1, both as the inputs."""
        channels, height, width = self._shape
        if query == 0:
            sign = self._stripes[examples].expand(-1, channels, height, width)
            return self._as_input(torch.ones_like(sign, dtype=torch.bool)), self._as_input(_sides(sign))
        drawn = self._windows[examples, query]
        share = _FIRST_SHARE / 2 ** sum(query > after * self._queries for after in _HALVED_AFTER)
        if self._rank is None:
            side = min(height, width, max(1, round(math.sqrt(share * height * width))))
            rows = _within(torch.arange(height, device=drawn.device), drawn[:, 0], side, height)
            columns = _within(torch.arange(width, device=drawn.device), drawn[:, 1], side, width)
            inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        else:
            inside = _within(self._rank[examples], drawn[:, 0], max(1, round(share * width)), width)[:, None, None]
        sign = _sides(drawn[:, 2:, None, None])
        full = (len(examples), channels, height, width)
        return self._as_input(inside.expand(full)), self._as_input(sign.expand(full))

    def _as_input(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *self._like.shape[1:])


def _sides(drawn: Tensor) -> Tensor:
    return torch.where(drawn < 0.5, -1.0, 1.0)


def _within(places: Tensor, drawn: Tensor, size: int, length: int) -> Tensor:
    """Return which places lie in a window of that size, whose start is drawn from U(0, 1): bool [B, length]."""
    start = (drawn * (length - size + 1)).floor()[:, None]
    return (places >= start) & (places < start + size)
