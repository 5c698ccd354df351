"""An attack on one member of an ensemble."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from adv_lightning.attacks.base import Attack, LossFn, Model


class MemberAttack(Attack):
    """Crafts on one member of an ensemble, for the ensemble to be judged (Goodfellow et al. 2015, section 9).

    Args:
        attack: What crafts.
        member: Number of the member, counted from 0.

    Raises:
        ValueError: member is negative; when called, the model holds no `Ensemble`, or one of fewer members.
    """

    def __init__(self, attack: Attack, member: int = 0) -> None:
        super().__init__()
        if member < 0:
            raise ValueError(f"member={member}: give a number counted from 0")
        self.attack = attack
        self.member = member

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        modules = model.modules() if isinstance(model, nn.Module) else iter(())
        ensemble = next((m for m in modules if isinstance(getattr(m, "members", None), nn.ModuleList)), None)
        if ensemble is None:
            raise ValueError(f"MemberAttack: {type(model).__name__} holds no Ensemble, so it has no members to attack")
        members = cast(nn.ModuleList, ensemble.members)
        if self.member >= len(members):
            raise ValueError(f"member={self.member}: the ensemble has {len(members)}, counted from 0")
        # The member alone in the ensemble's place, so that what stands before it, such as Normalize, stays.
        alone = nn.ModuleList([members[self.member]])
        alone.training = members.training
        ensemble.members = alone
        try:
            return self.attack(model, x, y, loss_fn=loss_fn)
        finally:
            ensemble.members = members
