"""What J is, and what the probabilities and the predicted class of its logits are."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class Loss(nn.Module):
    """J of logits and targets, with the probabilities that its logits mean. Base class of every loss."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss over the batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(logits, y)")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, [B, K] in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define probabilities(logits)")

    def predict(self, logits: Tensor) -> Tensor:
        """Return the predicted class, int64 [B]."""
        return logits.argmax(dim=-1)

    __call__: Callable[..., Tensor]


class SoftmaxLoss(Loss):
    """Cross-entropy of a softmax over K classes: logits [B, K], targets int64 [B]."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def predict(self, logits: Tensor) -> Tensor:
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"logits of shape {list(logits.shape)} are no [B, K] of K >= 2 classes: let the backbone give a logit "
                "for each class, or write a Loss of your own that says what its probabilities and predictions are"
            )
        return super().predict(logits)


class CallableLoss(SoftmaxLoss):
    """Any (logits, y) -> mean loss, whose logits are read as those of a softmax."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def extra_repr(self) -> str:
        return "" if isinstance(self.function, nn.Module) else getattr(self.function, "__name__", "")

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.function(logits, y)


def as_loss(loss_fn: Callable[[Tensor, Tensor], Tensor] | None) -> Loss:
    """Return `loss_fn` as a `Loss`; None is the cross-entropy of a softmax."""
    if loss_fn is None:
        return SoftmaxLoss()
    return loss_fn if isinstance(loss_fn, Loss) else CallableLoss(loss_fn)
