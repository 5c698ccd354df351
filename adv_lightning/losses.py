"""What J is, and what the probabilities and the predicted class of its logits are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
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

    def no_class(self, logits: Tensor) -> Tensor:
        """Return the mean loss, a scalar, of inputs that are of no class at all."""
        raise NotImplementedError(f"{type(self).__name__} must define no_class(logits) to be trained on rubbish")

    def check(self, logits: Tensor, y: Tensor) -> None:
        """Refuse targets that do not suit the logits, by their values too; done once an epoch, as it asks the device.

        Raises:
            ValueError: they do not. A loss that does not define this refuses nothing.
        """

    __call__: Callable[..., Tensor]


class _LogitEach(Loss):
    """A loss of K >= 2 classes with a logit for each."""

    def predict(self, logits: Tensor) -> Tensor:
        _check_classes(logits)
        return super().predict(logits)

    def check(self, logits: Tensor, y: Tensor) -> None:
        _check_shapes(logits, y)
        _check_range(y, logits.shape[1])

    def _present(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return 1 for each target's class and 0 for the others, int64 [B, K]."""
        _check_shapes(logits, y)
        try:
            return F.one_hot(y.long(), logits.shape[1])
        except RuntimeError:
            self.check(logits, y)
            raise


class SoftmaxLoss(_LogitEach):
    """Cross-entropy of a softmax over K classes: logits [B, K], targets int64 [B]."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        _check_shapes(logits, y)  # class probabilities, which cross_entropy would take, cannot be judged
        try:
            return F.cross_entropy(logits, y)
        except IndexError:
            self.check(logits, y)
            raise

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def no_class(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy of the uniform distribution over classes, its mean over the batch."""
        return -logits.log_softmax(dim=-1).mean()


class CallableLoss(SoftmaxLoss):
    """Any (logits, y) -> mean loss, whose logits are read as those of a softmax."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def extra_repr(self) -> str:
        return "" if isinstance(self.function, nn.Module) else getattr(self.function, "__name__", "")

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.function(logits, y)


class SigmoidLoss(_LogitEach):
    """Independent sigmoids over K classes: logits [B, K], targets int64 [B].

    The sum over classes of binary cross-entropies, of which the target's says "present" and every other's "absent".
    The probabilities do not sum to 1; confidence is the largest of them (Goodfellow et al. 2015, appendix A).
    """

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        present = self._present(logits, y).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, present, reduction="none").sum(dim=1).mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def no_class(self, logits: Tensor) -> Tensor:
        return F.softplus(logits).sum(dim=1).mean()


class RBFLoss(_LogitEach):
    """Independent probabilities exp(-q), q >= 0, of K classes: logits -q [B, K], targets int64 [B].

    The sum over classes of binary cross-entropies: q of the target, -log(1 - exp(-q)) of every other, where q counts
    as 2^-15 if it is less, so that the loss and its gradient stay finite. The probabilities do not sum to 1;
    confidence is the largest of them (Goodfellow et al. 2015, section 7).

    Raises:
        ValueError: a logit is above 0. Only looked for on the CPU; elsewhere the loss is then NaN.
    """

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        present = self._present(logits, y).bool()
        q = self._distance(logits)
        return torch.where(present, q, -_log1mexp(q)).sum(dim=1).mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.exp()

    def no_class(self, logits: Tensor) -> Tensor:
        return -_log1mexp(self._distance(logits)).sum(dim=1).mean()

    def _distance(self, logits: Tensor) -> Tensor:
        """Return q, [B, K], in float32 at least; NaN where it is negative."""
        if logits.device.type == "cpu" and (logits > 0).any():
            raise ValueError(
                f"RBFLoss: a logit is {logits.max().item():.4g}, and exp(logit) is to be a probability: "
                "use a backbone whose logits are at most 0, such as ShallowRBF"
            )
        q = -logits.to(torch.promote_types(logits.dtype, torch.float32))
        return torch.where(q >= 0, q, math.nan)


def _log1mexp(q: Tensor) -> Tensor:
    """Return log(1 - exp(-q)) for q >= 2^-15, exact near and far, and its value there for less."""
    q = q.clamp(min=2**-15)  # where the gradient, 1 / q, still fits float16
    return torch.where(q < math.log(2), torch.log(-torch.expm1(-q)), torch.log1p(-torch.exp(-q)))


class LogisticLoss(Loss):
    """Logistic regression: one logit an example, [B] or [B, 1], targets int64 [B], 0 or 1.

    The mean of softplus(-s * logit), s = -1 for class 0 and 1 for class 1 (Goodfellow et al. 2015, section 5). The
    probabilities are those of both classes, [B, 2].

    Raises:
        ValueError: there is another number of logits than targets, or a target is neither 0 nor 1. The latter is only
            looked for on the CPU; elsewhere the loss is then NaN, for asking would wait for the device.
    """

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        logit = _single(logits)
        if logit.shape != y.shape:
            raise ValueError(f"LogisticLoss: logits of shape {list(logits.shape)} and targets of {list(y.shape)}")
        return F.binary_cross_entropy_with_logits(logit, _binary(y).to(logit.dtype))

    def probabilities(self, logits: Tensor) -> Tensor:
        logit = _single(logits)
        return torch.stack([-logit, logit], dim=1).sigmoid()

    def predict(self, logits: Tensor) -> Tensor:
        return (_single(logits) > 0).long()

    def check(self, logits: Tensor, y: Tensor) -> None:
        _check_labels(y, len(_single(logits)))
        _binary(y)

    def no_class(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy of even odds, its mean over the batch."""
        logit = _single(logits)
        return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, 0.5))


def adversarial_logistic(weight: Tensor, bias: Tensor | float, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Logistic loss under FGSM in closed form: the mean of softplus(eps * |w|_1 - s (w.x + b)).

    It is the `LogisticLoss` of logit w.x + b at x + eps * sign(dJ/dx), not clipped, which is the most damaging point
    of the max-norm ball. Section 5 of Goodfellow et al. (2015) prints softplus(s (eps * |w|_1 - w.x - b)), which is
    right for s = 1; for s = -1 it rewards the adversary.

    Args:
        weight: w, [n] or [1, n].
        bias: b, a number or [1].
        x: Inputs, [B, ...] of n elements each.
        y: Targets, int64 [B], 0 or 1, that is s = -1 or 1.
        eps: Size of the perturbation in the max norm.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: a target is neither 0 nor 1; see `LogisticLoss`.
    """
    sign = 2 * _binary(y).to(weight.dtype) - 1
    margin = sign * (x.flatten(1) @ weight.flatten() + bias) - eps * weight.abs().sum()
    return -F.logsigmoid(margin).mean()


def _single(logits: Tensor) -> Tensor:
    """Return one logit an example, [B]."""
    if logits.dim() == 2 and logits.shape[1] == 1:
        return logits.squeeze(1)
    if logits.dim() != 1:
        raise ValueError(
            f"LogisticLoss: logits of shape {list(logits.shape)} are neither [B] nor [B, 1]: use a backbone with a "
            "single logit, such as LogisticRegression, or SoftmaxLoss for a logit for each class"
        )
    return logits


def _binary(y: Tensor) -> Tensor:
    """Return targets 0 and 1 as floating point, with NaN for any other."""
    known = (y == 0) | (y == 1)
    if y.device.type == "cpu" and not known.all():
        raise ValueError(
            f"targets of a logistic loss must be 0 or 1, got {y[~known][0].item()}: choose two classes of the data, "
            "which are then relabelled, such as data.classes: [3, 7]"
        )
    return torch.where(known, y.float(), math.nan)


def as_loss(loss_fn: Callable[[Tensor, Tensor], Tensor] | None) -> Loss:
    """Return `loss_fn` as a `Loss`; None is the cross-entropy of a softmax."""
    if loss_fn is None:
        return SoftmaxLoss()
    return loss_fn if isinstance(loss_fn, Loss) else CallableLoss(loss_fn)


def _check_classes(logits: Tensor) -> None:
    """Raise ValueError unless logits are [B, K] of K >= 2 classes."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"logits of shape {list(logits.shape)} are no [B, K] of K >= 2 classes: let the backbone give a logit for "
            "each class, use LogisticLoss where there is a single one, or write a Loss of your own that says what its "
            "probabilities and predictions are"
        )


def _check_shapes(logits: Tensor, y: Tensor) -> None:
    """Raise ValueError unless there is a label for each row of logits, [B, K]."""
    _check_classes(logits)
    _check_labels(y, len(logits))


def _check_labels(y: Tensor, number: int) -> None:
    """Raise ValueError unless labels are int64 or uint8 [number]."""
    if y.dtype not in (torch.int64, torch.uint8) or y.shape != (number,):
        raise ValueError(
            f"labels of {y.dtype}, {list(y.shape)}, for {number} logits: give the number of each example's class, "
            f"int64 [{number}], such as y.argmax(dim=1) of one-hot rows, or override unpack; other targets can be "
            "trained on with a loss_fn of your own, but not judged"
        )


def _check_range(y: Tensor, classes: int) -> None:
    """Raise ValueError unless labels are 0 to classes - 1, which waits for the device."""
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels go from {low} to {high}, and the logits are of {classes} classes: count classes from 0 to "
            f"{classes - 1}, or let the backbone give more logits (num_classes)"
        )
