"""What attacks of other libraries have in common: their units, their random numbers, their names."""

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

from adv_lightning.attacks.base import (
    Attack,
    LossFn,
    Model,
    check_differentiable_input,
    clip,
    gradients_enabled,
    magnitude,
)
from adv_lightning.attacks.external.adapter import UnitModel, as_images
from adv_lightning.attacks.scaled_gradient import rows

Norm = Literal["Linf", "L2"]

_SIZES = {"eps", "max_epsilon", "alpha", "abs_stepsize"}
"""Arguments of the libraries that are given in the units of the input."""


class ExternalAttack(Attack):
    """An attack of another library. Base class of them all; override `craft`.

    Libraries know pixels from 0 to 1 alone, so inputs are mapped onto that range and back, from `bounds`, or where
    they are None from [lowest pixel of the batch - eps, highest + eps], which clips nothing. The result is projected
    onto the ball of radius eps against rounding; a pixel that the library leaves, or makes NaN, is left to the bit.

    The loss that is climbed is the library's, of a softmax over the logits; `loss_fn` is not looked at. A single
    logit z is shown to the library as the logits (0, z), whose softmax is its sigmoid. The model runs in its own
    mode. With a model in eval mode a batch always gives the same result, and no global generator is touched; draws
    depend on the batch as a whole. With a model in train mode they are made anew.

    Raises:
        ValueError: when called, an input lies outside `bounds`.
    """

    bounds: tuple[float, float] | None
    seed: int
    dtype: torch.dtype | None = None
    """What the library computes in. None: the input's, or float32 where that is more precise."""

    def ball(self) -> tuple[float, float] | None:
        """Return (radius, p) of the Lp ball that holds the result, in the units of the input; None: there is none."""
        raise NotImplementedError(f"{type(self).__name__} must define ball()")

    def craft(self, model: UnitModel, x: Tensor, y: Tensor, span: float, seed: int) -> Tensor:
        """Let the library craft.

        Args:
            model: Images in [0, 1] -> logits [B, K], K >= 2.
            x: Images in [0, 1], [B, C, H, W].
            y: Targets, int64 [B].
            span: Length in the units of the input that is 1 here.
            seed: Seed for what draws from a generator of its own; torch's and numpy's are seeded already.
        """
        raise NotImplementedError(f"{type(self).__name__} must define craft(model, x, y, span, seed)")

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        check_differentiable_input(x)
        eps, p = self.ball() or (math.inf, math.inf)
        anew = isinstance(model, nn.Module) and model.training
        seed = int(torch.randint(2**31, ())) if anew else self.seed
        with gradients_enabled(model), _seeded(seed):
            x, y = x.detach().clone(), y.clone()
            if eps == 0:
                return x
            low, high = self._range(x, eps)
            images = as_images(x).to(self.dtype or torch.promote_types(x.dtype, torch.float32))
            images = ((images - low) / (high - low)).clamp(0, 1)
            unit_model = UnitModel(model, x, low, high)
            with warnings.catch_warnings():  # what the library does is out of date, not what the user does
                warnings.simplefilter("ignore", DeprecationWarning)
                found = self.craft(unit_model, images, y, high - low, seed).detach()
            left = (found == images) | found.isnan()
            x_adv = torch.where(left.view_as(x), x, unit_model.inputs(found))
            return clip(_project(x_adv, x, eps, p), self.bounds)

    def _range(self, x: Tensor, eps: float) -> tuple[float, float]:
        low, high = x.min().item(), x.max().item()
        if self.bounds is None:
            return low - eps, high + eps
        if low < self.bounds[0] or high > self.bounds[1]:
            raise ValueError(
                f"{type(self).__name__}: inputs go from {low:.6g} to {high:.6g}, and bounds={self.bounds}: give the "
                "bounds of what the model is shown, or null for unclipped"
            )
        return self.bounds


def load(name: str) -> Any:
    """Return a library, or raise ImportError with what to install."""
    try:
        with warnings.catch_warnings():  # they import what is deprecated elsewhere
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing ({error}): pip install 'adv_lightning[attacks]'") from None


def check_name(what: str, name: str, known: Collection[str], owner: str) -> None:
    """Raise ValueError with the names near it unless `name` is known."""
    if name in known:
        return
    folded = {each.lower(): each for each in known}
    near = [folded[each] for each in difflib.get_close_matches(str(name).lower(), folded, n=4)]
    words = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(known)) or 'none'}"
    raise ValueError(f"{owner} has no {what} {name!r}: {words}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch and numpy, then put their generators back."""
    # Seeding reaches every GPU there is, once there is one in use.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    state = np.random.get_state()  # noqa: NPY002  # the one that libraries draw from
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _project(x_adv: Tensor, x: Tensor, eps: float, p: float) -> Tensor:
    if p == math.inf:
        return x_adv.clamp(x - eps, x + eps)
    delta = rows(x_adv - x)
    factor = eps / torch.linalg.vector_norm(delta, ord=p, dim=1, keepdim=True)
    return torch.where((factor < 1).view(-1, *[1] * (x.dim() - 1)), x + (delta * factor).to(x.dtype).view_as(x), x_adv)


def checked_arguments(arguments: dict[str, Any] | None, taken: set[str], owner: str) -> dict[str, Any]:
    """Return the arguments, sizes as numbers, or raise ValueError at one that is not taken."""
    for name in arguments or {}:
        check_name("argument", name, taken, owner)
    return {name: magnitude(name, value) if name in _SIZES else value for name, value in (arguments or {}).items()}


def in_pixel_range(arguments: dict[str, Any], span: float) -> dict[str, Any]:
    """Return the arguments with sizes divided by `span`, the length in the units of the input that is 1 there."""
    return {name: value / span if name in _SIZES else value for name, value in arguments.items()}
