"""An attack on one member of an ensemble."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.gradients import LossFn, Model
from adv_lightning.attacks.threat_model import Ball


class MemberAttack(Attack):
    """Crafts on one member of an ensemble; the whole ensemble is judged (Goodfellow et al. 2015, section 9).

    Args:
        attack: The attack on the member.
        member: Number of the member, counted from 0.

    Raises:
        ValueError: `member` is negative; when called, the model contains no `Ensemble`, or one with fewer members.
    """

    uses_gradient = False  # of the ensemble

    def __init__(self, attack: Attack, member: int = 0) -> None:
        super().__init__()
        if member < 0:
            raise ValueError(f"member={member}: give a number >= 0; members are counted from 0")
        self.attack = attack
        self.member = member
        self.steps = attack.steps

    @property
    def uses_label(self) -> bool:
        return self.attack.uses_label

    def ball(self) -> Ball | None:
        return self.attack.ball()

    def reach(self) -> float | None:
        return self.attack.reach()

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        modules = model.modules() if isinstance(model, nn.Module) else iter(())
        ensemble = next((m for m in modules if isinstance(getattr(m, "members", None), nn.ModuleList)), None)
        if ensemble is None:
            raise ValueError(f"MemberAttack: {type(model).__name__} contains no Ensemble: give a model that has one")
        members = cast(nn.ModuleList, ensemble.members)
        if self.member >= len(members):
            raise ValueError(f"member={self.member}: the ensemble has {len(members)} members, counted from 0")
        # The member takes the whole ensemble's place, so that layers before the ensemble, such as Normalize, stay.
        alone = nn.ModuleList([members[self.member]])
        alone.training = members.training
        ensemble.members = alone
        try:
            return self.attack(model, x, y, loss_fn=loss_fn)
        finally:
            ensemble.members = members
