"""Pixels that the gradient does not reach although the network reacts to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from adv_lightning.data.sample_limit import within_limit
from adv_lightning.module import AdversarialModule

PROBED_EXAMPLES = 32
PROBED_PIXELS = 64
_NEARLY_NEVER = 0.01
"""Share of the examples up to which a pixel counts as one without a gradient."""
_FEWEST = 20
"""Examples with a gradient that are needed: on fewer, pooling and ReLU may pass over an honest pixel."""
_WEAK = 0.1
"""Share of the usual reaction from which a pixel without a gradient counts as one that the network reacts to."""


@dataclass(frozen=True)
class DeadPixels:
    """How many pixels the gradient does not reach, estimated on some of them.

    Args:
        dead: Number of input components whose gradient is zero for all examples or nearly all.
        probed: How many of these were changed, to see whether the logits change.
        reacting: On how many of the probed ones the logits changed about as much as they do on others.
        pixels: Number of components of an input.
    """

    dead: int
    probed: int
    reacting: int
    pixels: int

    @property
    def share(self) -> float:
        """Share of all components that have no gradient but a reaction, in [0, 1]."""
        return self.dead / self.pixels * (self.reacting / self.probed) if self.probed else 0.0


class DeadPixelProbe:
    """Counts in which examples each pixel has a gradient, and keeps the first examples for `find`."""

    def __init__(self) -> None:
        self._alive: Tensor | None = None
        self._examples = torch.tensor(0)
        self._seen = 0
        self._kept: list[Tensor] = []

    def update(self, trainer: Trainer, x: Tensor, grad: Tensor) -> None:
        """Add inputs, [B, ...], and their gradients."""
        known = grad.flatten(1) != 0
        alive = known.sum(dim=0)
        self._alive = alive if self._alive is None else self._alive + alive
        self._examples = self._examples.to(x.device) + known.any(dim=1).sum()
        first = within_limit(PROBED_EXAMPLES, trainer.global_rank, trainer.world_size, self._seen, len(x))
        self._seen += len(x)
        if first:
            self._kept.append(x[:first].detach().clone())

    def find(self, trainer: Trainer, module: AdversarialModule, step: float) -> DeadPixels | None:
        """Change pixels one at a time by `step` up and down, and compare how much the logits change.

        All processes call it together. Costs at most two passes of 32 examples for each of 128 pixels.

        Returns:
            None if fewer than 20 examples have a gradient.
        """
        strategy = trainer.strategy
        pixels = strategy.broadcast(0 if self._alive is None else len(self._alive))
        alive = torch.zeros(pixels, dtype=torch.int64) if self._alive is None else self._alive
        alive, examples = (
            strategy.reduce(count.to(module.device), reduce_op="sum") for count in (alive, self._examples)
        )
        if examples < _FEWEST:
            return None
        without = alive <= _NEARLY_NEVER * examples
        dead, live = (_some(chosen.nonzero().flatten()) for chosen in (without, ~without))
        reactions = strategy.reduce(self._reactions(module, torch.cat([dead, live]), step), reduce_op="sum")
        of_dead, of_live = reactions[: len(dead)], reactions[len(dead) :]
        least = _WEAK * of_live.median() if len(live) else torch.tensor(0.0)
        reacting = int((of_dead > least.to(of_dead)).sum())
        return DeadPixels(int(without.sum()), len(dead), reacting, pixels)

    def _reactions(self, module: AdversarialModule, chosen: Tensor, step: float) -> Tensor:
        """Return the summed change of the logits of this process's examples for each chosen pixel."""
        found = torch.zeros(len(chosen), dtype=torch.float64, device=module.device)
        if not self._kept:
            return found
        x = torch.cat(self._kept)
        with torch.no_grad():
            logits = module(x).flatten(1)
            for i, pixel in enumerate(chosen.tolist()):
                changes = []
                for size in (step, -step):
                    moved = x.flatten(1).clone()
                    moved[:, pixel] += size
                    changes.append((module(moved.view_as(x)).flatten(1) - logits).abs().amax(dim=1))
                found[i] = torch.nan_to_num(torch.maximum(*changes).double(), nan=math.inf).clamp(max=1e30).sum()
        return found


def _some(chosen: Tensor) -> Tensor:
    """Return at most 64 of these, evenly spread."""
    if len(chosen) <= PROBED_PIXELS:
        return chosen
    return chosen[torch.linspace(0, len(chosen) - 1, PROBED_PIXELS, device=chosen.device).round().long()]
