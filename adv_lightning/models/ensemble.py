"""Several networks as one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Averages the probabilities of its members: images [B, C, H, W] to logits [B, K].

    The logits are the logarithm of the members' mean softmax, so that their softmax is that mean. An attack on
    the ensemble climbs the loss of the mean; an attack on ``ensemble.members[i]`` crafts on one member, for the
    ensemble to be judged on (Goodfellow et al. 2015, section 9, which does not say how it averages).

    The ensemble starts in eval mode if all of its members are in it, and in train mode otherwise.

    Args:
        members: networks that give the logits of a softmax over the same classes, at least one.

    Raises:
        ValueError: if there is no member; in ``forward``, if the members' logits differ in shape.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("Ensemble: members is empty: give at least one network.")
        self.members = nn.ModuleList(members)
        self.train(any(member.training for member in members))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits = [member(x) for member in self.members]
        shapes = [list(each.shape) for each in logits]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"Ensemble: members must have the same classes, got logits of {shapes}.")
        return torch.stack(logits).log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
