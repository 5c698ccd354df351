"""An attack crafted on another network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.gradients import LossFn, Model
from adv_lightning.attacks.model_mode import InEvalMode
from adv_lightning.attacks.threat_model import Ball
from adv_lightning.data.class_names import check_class_names
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.module import AdversarialModule


class Transferred(Attack):
    """Crafts on the network in a checkpoint; another one is judged (Goodfellow et al. 2015, sections 6 and 8).

    The model that the attack is called with is never run: the attacker knows only its data. The attack increases the
    loss of the checkpoint's own module, in eval mode and in float32, not the `loss_fn` of the judged model.
    The checkpoint is read when the attack is first called, and is in no `state_dict`.

    Args:
        checkpoint: Path of a checkpoint that the command line made, which describes its network.
        attack: The attack on that network.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: when first called, the module cannot be rebuilt from the file; see `load_module`.
    """

    uses_gradient = False  # of the model judged

    def __init__(self, checkpoint: str, attack: Attack) -> None:
        super().__init__()
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f"checkpoint={checkpoint!r} does not exist")
        self.checkpoint = checkpoint
        self.attack = attack
        self.steps = attack.steps
        self._sources: list[AdversarialModule] = []  # a list keeps it from becoming a submodule

    @property
    def uses_label(self) -> bool:
        return self.attack.uses_label

    def ball(self) -> Ball | None:
        return self.attack.ball()

    def reach(self) -> float | None:
        return self.attack.reach()

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        if not self._sources:
            self._sources.append(load_module(self.checkpoint).requires_grad_(False))
            if isinstance(model, AdversarialModule):
                check_class_names(self._sources[0].trained_classes, model.trained_classes, self.checkpoint)
        with torch.inference_mode(False), torch.autocast(x.device.type, enabled=False):
            source = self._sources[0].to(x.device)
            dtype = next((p.dtype for p in source.parameters()), x.dtype)
            # The source is in eval mode always. In training, the attack must draw anew in each step all the same.
            crafted_on = InEvalMode(source)
            crafted_on.training = isinstance(model, nn.Module) and model.training
            crafted: Tensor = self.attack(crafted_on, x.to(dtype), y, loss_fn=source.loss)
        return crafted.to(x.dtype)
