"""An attack on one member of an ensemble."""

from __future__ import annotations

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
        return self.attack(self._member(model), x, y, loss_fn=loss_fn)

    def _member(self, model: Model) -> nn.Module:
        modules = model.modules() if isinstance(model, nn.Module) else iter(())
        held = (getattr(module, "members", None) for module in modules)
        members = next((found for found in held if isinstance(found, nn.ModuleList)), None)
        if members is None:
            raise ValueError(f"MemberAttack: {type(model).__name__} holds no Ensemble, so it has no members to attack")
        if self.member >= len(members):
            raise ValueError(f"member={self.member}: the ensemble has {len(members)}, counted from 0")
        return members[self.member]
