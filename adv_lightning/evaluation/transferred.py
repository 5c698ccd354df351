"""An attack crafted on another network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from adv_lightning.attacks.base import Attack, LossFn, Model
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.module import AdversarialModule


class Transferred(Attack):
    """Crafts on the network in a checkpoint, for another to be judged (Goodfellow et al. 2015, sections 6 and 8).

    The model that it is called with is never asked: the attacker knows it only by its data. What is climbed is the
    loss of the checkpoint's own module, in eval mode and in float32, not the `loss_fn` of the model judged.
    The checkpoint is read when the attack is first called, and is kept out of every `state_dict`.

    Args:
        checkpoint: Path of a checkpoint that a command line made, so that it knows its network.
        attack: What crafts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: when first called, the file is no checkpoint that can be rebuilt; see `load_module`.
    """

    def __init__(self, checkpoint: str, attack: Attack) -> None:
        super().__init__()
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f"checkpoint={checkpoint!r}: there is no such file")
        self.checkpoint = checkpoint
        self.attack = attack
        self._sources: list[AdversarialModule] = []  # in a list, and so no submodule

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        if not self._sources:
            self._sources.append(load_module(self.checkpoint).requires_grad_(False))
        with torch.inference_mode(False), torch.autocast(x.device.type, enabled=False):
            source = self._sources[0].to(x.device)
            dtype = next((p.dtype for p in source.parameters()), x.dtype)
            crafted: Tensor = self.attack(source, x.to(dtype), y, loss_fn=source.loss)
        return crafted.to(x.dtype)
