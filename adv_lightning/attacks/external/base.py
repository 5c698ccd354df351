"""What attacks of other libraries have in common: units, random numbers and names."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from adv_lightning.attacks.argument_checks import clip, magnitude
from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.external.adapter import UnitModel, as_images
from adv_lightning.attacks.gradients import LossFn, Model, check_differentiable_input, gradients_enabled
from adv_lightning.attacks.scaled_gradient import rows
from adv_lightning.attacks.threat_model import Ball

Norm = Literal["Linf", "L2"]

_SIZES = {"eps", "max_epsilon", "alpha", "abs_stepsize"}
"""Arguments of the libraries that this package takes in the units of the input."""


class ExternalAttack(Attack):
    """An attack of another library. Base class of all such attacks: override `craft`.

    Libraries expect pixels from 0 to 1, so inputs are mapped from `bounds` onto that range and back. If `bounds` is
    None, they are mapped from [lowest pixel of the batch - eps, highest + eps], which clips nothing. The result is
    projected onto the attack's ball to undo rounding. A pixel that the library leaves unchanged, or makes NaN, stays
    exactly as it was.

    The attack increases the library's own loss, on a softmax over the logits, and ignores `loss_fn`. The library sees
    a single logit z as the logits (0, z): their softmax is the sigmoid of z. The model runs in its current mode. With
    a model in eval mode, a batch always gives the same result and no global generator is touched; draws depend on the
    batch as a whole. With a model in train mode, every call draws anew.

    Raises:
        ValueError: when called, an input lies outside `bounds`.
    """

    bounds: tuple[float, float] | None
    seed: int
    uses_gradient: bool | None = None  # libraries have both white-box and black-box attacks
    dtype: torch.dtype | None = None
    """Dtype that the library computes in. None: the input's, but at least float32."""

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        """Let the library craft.

        Args:
            model: Images in [0, 1] -> logits [B, K], K >= 2.
            x: Images in [0, 1], [B, C, H, W].
            y: Targets, int64 [B].
            span: Size in the units of the input that corresponds to 1 here.
            seed: Seed for a generator of the library's own; torch's and numpy's are already seeded.
        """
        raise NotImplementedError(f"{type(self).__name__} must define craft(model, x, y, span, seed)")

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        check_differentiable_input(x)
        ball = self.ball() or Ball(math.inf, math.inf)
        anew = isinstance(model, nn.Module) and model.training
        seed = int(torch.randint(2**31, ())) if anew else self.seed
        with gradients_enabled(model), _seeded(seed):
            x, y = x.detach().clone(), y.clone()
            if ball.eps == 0:
                return x
            low, high = self._range(x, ball.eps)
            images = as_images(x).to(self.dtype or torch.promote_types(x.dtype, torch.float32))
            images = ((images - low) / (high - low)).clamp(0, 1)
            unit_model = UnitModel(model, x, low, high)
            with warnings.catch_warnings():  # the library uses deprecated code, not the user
                warnings.simplefilter("ignore", DeprecationWarning)
                found = self.craft(unit_model, images, y, high - low, seed).detach()
            left = (found == images) | found.isnan()
            x_adv = torch.where(left.view_as(x), x, unit_model.inputs(found))
            return clip(_project(x_adv, x, ball), self.bounds)

    def _range(self, x: Tensor, eps: float) -> tuple[float, float]:
        low, high = x.min().item(), x.max().item()
        if self.bounds is None:
            return low - eps, high + eps
        if low < self.bounds[0] or high > self.bounds[1]:
            raise ValueError(
                f"{type(self).__name__}: inputs range from {low:.6g} to {high:.6g}, outside bounds={self.bounds}: give "
                "the bounds of the model's inputs, or null for unclipped"
            )
        return self.bounds


def load(name: str) -> Any:
    """Import a library, or raise ImportError that says what to install."""
    try:
        with warnings.catch_warnings():  # they import deprecated code of others
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        raise ImportError(f"cannot import {name} ({error}): pip install 'adv_lightning[attacks]'") from None


def check_name(what: str, name: str, known: Collection[str], owner: str) -> None:
    """Raise ValueError that suggests similar names unless `name` is known."""
    if name in known:
        return
    folded = {each.lower(): each for each in known}
    near = [folded[each] for each in difflib.get_close_matches(str(name).lower(), folded, n=4)]
    words = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
    raise ValueError(f"{owner} has no {what} {name!r}: {words}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch and numpy, then restore their generators."""
    # Seeding reaches every GPU as soon as one is in use.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    state = np.random.get_state()  # noqa: NPY002  # libraries draw from this one
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _project(x_adv: Tensor, x: Tensor, ball: Ball) -> Tensor:
    if ball.norm == math.inf:
        return x_adv.clamp(x - ball.eps, x + ball.eps)
    delta = rows(x_adv - x)
    factor = ball.eps / torch.linalg.vector_norm(delta, ord=ball.norm, dim=1, keepdim=True)
    return torch.where((factor < 1).view(-1, *[1] * (x.dim() - 1)), x + (delta * factor).to(x.dtype).view_as(x), x_adv)


def checked_arguments(arguments: dict[str, Any] | None, taken: set[str], owner: str) -> dict[str, Any]:
    """Return the arguments with sizes as numbers; raise ValueError for an argument that is not in `taken`."""
    for name in arguments or {}:
        check_name("argument", name, taken, owner)
    return {name: magnitude(name, value) if name in _SIZES else value for name, value in (arguments or {}).items()}


def in_pixel_range(arguments: dict[str, Any], span: float) -> dict[str, Any]:
    """Return the arguments with sizes divided by `span`, the size in the units of the input that is 1 there."""
    return {name: value / span if name in _SIZES else value for name, value in arguments.items()}
