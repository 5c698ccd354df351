"""Noise: perturbations that follow no gradient."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adv_lightning.attacks.argument_checks import check_bounds, clip, magnitude
from adv_lightning.attacks.base import SingleStepAttack
from adv_lightning.attacks.gradients import LossFn, Model, check_differentiable_input


class Noise(SingleStepAttack):
    """Adds random numbers to the input, whatever the gradient. Base class of all noises: override `draw`.

    In training, `step` draws from `generator`. As an attack on a model in eval mode, the noise of an example depends
    only on `seed` and the example itself: results do not change with batch size, order or number of processes, and
    no global generator is touched. On a model in train mode, every call draws new noise.

    Args:
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of the draws in evaluation.

    Raises:
        ValueError: `bounds` do not increase.
    """

    needs_grad = False
    generator: torch.Generator | None = None
    """Generator that `step` draws from, on the CPU or the value's device. None: torch's global generator."""

    def __init__(self, bounds: tuple[float, float] | None = None, seed: int = 0) -> None:
        super().__init__()
        self.bounds = check_bounds(bounds)
        self.seed = seed

    def draw(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return independent noise for each element, with the shape, dtype and device of `value`."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(value, generator)")

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return clip(value + self.draw(value, self.generator), self.bounds)

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        check_differentiable_input(x)
        x = x.detach()
        if isinstance(model, nn.Module) and model.training:
            return self.step(x, None)
        return clip(x + draws_of_each(x, self.seed, self.draw), self.bounds)


class SignNoise(Noise):
    """Adds eps or -eps to each pixel, with equal probability (Goodfellow et al. 2015, section 6, control experiment).

    Args:
        eps: Size of the noise in the max norm, in the units of the input: a number or a fraction such as 8/255.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of the draws in evaluation.

    Raises:
        ValueError: eps is negative or not a number, or `bounds` do not increase.
    """

    def __init__(self, eps: float | str, bounds: tuple[float, float] | None = None, seed: int = 0) -> None:
        super().__init__(bounds, seed)
        self.eps = magnitude("eps", eps)

    def draw(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        bits = _blank(value, generator).random_(0, 2, generator=generator).to(value)
        return self.eps * (2 * bits - 1)


class UniformNoise(Noise):
    """Adds a draw from U(-eps, eps) to each pixel (Goodfellow et al. 2015, section 6, control experiment).

    Args:
        eps: Largest size of the noise, in the units of the input: a number or a fraction such as 8/255.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of the draws in evaluation.

    Raises:
        ValueError: eps is negative or not a number, or `bounds` do not increase.
    """

    def __init__(self, eps: float | str, bounds: tuple[float, float] | None = None, seed: int = 0) -> None:
        super().__init__(bounds, seed)
        self.eps = magnitude("eps", eps)

    def draw(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = _blank(value, generator).uniform_(generator=generator).to(value)
        return self.eps * (2 * noise - 1)


class GaussianNoise(Noise):
    """Adds a draw from N(0, std^2) to each pixel.

    Args:
        std: Standard deviation of the noise, in the units of the input: a number or a fraction such as 8/255.
        bounds: Lowest and highest pixel value, to which the result is clipped. Null: not clipped.
        seed: Seed of the draws in evaluation.

    Raises:
        ValueError: std is negative or not a number, or `bounds` do not increase.
    """

    def __init__(self, std: float | str, bounds: tuple[float, float] | None = None, seed: int = 0) -> None:
        super().__init__(bounds, seed)
        self.std = magnitude("std", std)

    def draw(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.std * _blank(value, generator).normal_(generator=generator).to(value)


def draws_of_each(x: Tensor, seed: int, draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
    """Return `draw(example, generator)` for each example of `x`: a function of the seed and the example alone."""
    generator = torch.Generator()
    examples = x.detach().cpu().contiguous()
    draws = []
    for example in examples:
        generator.manual_seed(zlib.crc32(example.float().numpy().tobytes(), seed))
        draws.append(draw(example, generator))
    return torch.stack(draws).to(x) if draws else torch.empty_like(x)


def _blank(value: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return an empty tensor to draw into: like `value`, or in float32 on the generator's device if one is given."""
    if generator is None:
        return torch.empty_like(value)
    # A generator then gives the same numbers whatever the dtype and device of the value.
    return torch.empty(value.shape, dtype=torch.float32, device=generator.device)
