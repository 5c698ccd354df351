"""The step that turns noise into an image of any class, and its repetition."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adv_lightning.attacks.gradients import gradients, gradients_enabled
from adv_lightning.data.seeding import mix_seed
from adv_lightning.evaluation.rubbish import CHUNK
from adv_lightning.module import AdversarialModule

Direction = Literal["sign", "gradient"]


class Generated(NamedTuple):
    """The result of repeated draws: an image, [1, ...], the number of draws, and whether the last one succeeded."""

    image: Tensor
    draws: int
    succeeded: bool


def generate(
    module: AdversarialModule,
    target: int,
    like: Tensor,
    eps: float,
    threshold: float = 0.5,
    max_draws: int = 1000,
    seed: int = 0,
) -> Generated:
    """Draw from N(0, I) and step towards a class until its probability is at least `threshold`.

    Args:
        module: The network, in eval mode, and the loss, which defines its probabilities.
        target: The class, counted from 0.
        like: Any image, [1, ...], with the shape, dtype and device of the images to generate.
        eps: Size of the step along the sign of the gradient, in the units of the input.
        threshold: In [0, 1].
        max_draws: Number of draws after which to give up and return the last image.
        seed: Seed of the draws.

    Returns:
        The image, [1, ...], the number of draws, and whether the last succeeded.
    """
    for i in range(-(-max_draws // CHUNK)):
        z = draws(min(CHUNK, max_draws - i * CHUNK), like.shape[1:], target, i, seed).to(like)
        x = fooling_step(module, z, target, eps)
        hits = (class_probability(module, x, target) >= threshold).nonzero()
        if len(hits):
            first = int(hits[0])
            return Generated(x[first : first + 1], i * CHUNK + first + 1, True)
    return Generated(x[-1:], max_draws, False)


def fooling_step(
    module: AdversarialModule, x: Tensor, target: int, eps: float, direction: Direction = "sign"
) -> Tensor:
    """Take one step towards a class: x + eps * sign(dp/dx), or x + eps * dp/dx, with p the class's probability.

    Args:
        module: The network and the loss, which defines its probabilities.
        x: Inputs, floating point, [B, ...].
        target: The class, counted from 0.
        eps: Size of the step.
        direction: Along the "sign" of the gradient, or the "gradient" itself.

    Returns:
        Inputs of the shape of `x`, detached.
    """
    with gradients_enabled(module):
        x = x.detach().clone().requires_grad_()
        # Through the logarithm, in float64: far from the class, a softmax's p and its gradient underflow.
        logarithm = module.loss_fn.probabilities(module(x).double())[:, target].log()
        (grad,), _ = gradients(logarithm.sum(), [x])
    grad = torch.nan_to_num(grad, nan=0.0, posinf=0.0, neginf=0.0)
    if direction == "gradient":
        grad = grad * logarithm.detach().exp().to(grad.dtype).view(-1, *[1] * (x.dim() - 1))
    return x.detach() + eps * (grad.sign() if direction == "sign" else grad)


def class_probability(module: AdversarialModule, x: Tensor, target: int) -> Tensor:
    """Return the probability of a class, [B], detached."""
    with torch.no_grad():
        return module.loss_fn.probabilities(module(x))[:, target].float()


def draws(number: int, shape: torch.Size, *key: int) -> Tensor:
    """Draw from N(0, I), float32 on the CPU: a function of the key alone."""
    # The first number separates these draws from those of the data set and the noises.
    return torch.randn(number, *shape, generator=torch.Generator().manual_seed(mix_seed(3, *key)))
