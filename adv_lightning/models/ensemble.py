"""Several networks as one classifier."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Averages the probabilities of its members: images [B, C, H, W] to logits [B, K].

    The logits are the logarithm of the members' mean softmax, so their softmax is that mean. An attack on the ensemble
    climbs the loss of the mean. To test the ensemble on examples crafted for one member, attack `ensemble.members[i]`.
    See Goodfellow et al. 2015, section 9, which does not say how its ensemble averages.

    Each member gets a copy of the input, so it may work in place.

    The ensemble starts in eval mode if all its members are in eval mode, and in train mode otherwise.

    Args:
        members: At least one network. All return logits of a softmax over the same classes.

    Raises:
        ValueError: there are no members; in `forward`, their logits differ in shape.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("Ensemble: members is empty: give at least one network")
        self.members = nn.ModuleList(members)
        self.train(any(member.training for member in members))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits = [member(x.clone()) for member in self.members]
        shapes = [list(each.shape) for each in logits]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"Ensemble: members must have the same classes, got logits of the shapes {shapes}")
        return torch.stack(logits).log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
