"""How sure the right answer is, in logits."""

from __future__ import annotations

import math

from torch import Tensor


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the logit of the true class less the largest other one, [B]: above 0 if the answer is right.

    Of a single logit, the logit itself for class 1 and its negative for class 0.

    Args:
        logits: [B, K], or [B] or [B, 1].
        y: Targets, int64 [B].
    """
    if logits.dim() == 1 or logits.shape[1] == 1:
        return logits.flatten() * (2 * y.to(logits.dtype) - 1)
    own = logits.gather(1, y.long()[:, None])
    others = logits.scatter(1, y.long()[:, None], -math.inf)
    return (own - others.amax(dim=1, keepdim=True)).flatten()


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean of the negative margin, a scalar: an attack that increases it lowers the margin.

    Its gradient is never small because an answer is sure, unlike that of a cross-entropy (Carlini & Wagner 2017).
    """
    return -margin(logits, y).mean()
