"""Losses, and what each makes of logits and labels.

Length: every loss, and the checks of logits and labels that they share.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

_NO_LABEL = torch.iinfo(torch.int64).min
"""No label is ignored: torch would leave out the label -100, and the error could not."""

__all__ = ["LogisticLoss", "Loss", "RBFLoss", "SigmoidLoss", "SoftmaxLoss", "adversarial_logistic"]


class Loss(nn.Module):
    """Base class of every loss: J(logits, targets), and the probabilities that the logits stand for."""

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
        """Return the mean loss, a scalar, of inputs that belong to no class."""
        raise NotImplementedError(f"{type(self).__name__} must define no_class(logits) to be trained on rubbish")

    def check(self, logits: Tensor, y: Tensor) -> None:
        """Check that targets fit the logits, including their values. Called once an epoch: it waits for the device.

        Raises:
            ValueError: targets do not fit. A loss that does not override this accepts everything.
        """

    __call__: Callable[..., Tensor]


class _MulticlassLoss(Loss):
    """A loss with one logit for each of K >= 2 classes."""

    def predict(self, logits: Tensor) -> Tensor:
        _check_classes(logits)
        return super().predict(logits)

    def check(self, logits: Tensor, y: Tensor) -> None:
        _check_shapes(logits, y)
        _check_range(y, logits.shape[1])

    def _one_hot(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return 1 for each target's class and 0 for the others, int64 [B, K]."""
        _check_shapes(logits, y)
        try:
            return F.one_hot(y.long(), logits.shape[1])
        except RuntimeError:
            self.check(logits, y)
            raise


class SoftmaxLoss(_MulticlassLoss):
    """Cross-entropy of a softmax over K classes: logits [B, K], targets int64 [B]."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        _check_shapes(logits, y)  # cross_entropy accepts class probabilities as targets; the metrics do not
        try:
            return F.cross_entropy(logits, y, ignore_index=_NO_LABEL)
        except IndexError:
            self.check(logits, y)
            raise

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def no_class(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy with the uniform distribution over classes as target, the mean over the batch."""
        return -logits.log_softmax(dim=-1).mean()


class CallableLoss(SoftmaxLoss):
    """Any function (logits, y) -> mean loss. Its logits are read as those of a softmax."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def extra_repr(self) -> str:
        return "" if isinstance(self.function, nn.Module) else getattr(self.function, "__name__", "")

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.function(logits, y)


class SigmoidLoss(_MulticlassLoss):
    """Independent sigmoids over K classes: logits [B, K], targets int64 [B].

    The sum over classes of binary cross-entropies, with the target's class present and all others absent. The
    probabilities do not sum to 1; confidence is the largest of them (Goodfellow et al. 2015, appendix A).
    """

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        present = self._one_hot(logits, y).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, present, reduction="none").sum(dim=1).mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def no_class(self, logits: Tensor) -> Tensor:
        return F.softplus(logits).sum(dim=1).mean()


class RBFLoss(_MulticlassLoss):
    """Independent probabilities exp(-q), q >= 0, of K classes: logits -q [B, K], targets int64 [B].

    The sum over classes of binary cross-entropies: q for the target's class, -log(1 - exp(-q)) for the others. There
    a q below 2^-15 counts as 2^-15, so that loss and gradient stay finite. The probabilities do not sum to 1;
    confidence is the largest of them (Goodfellow et al. 2015, section 7).

    Raises:
        ValueError: a logit is above 0. Checked on the CPU only; elsewhere the loss is NaN.
    """

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        present = self._one_hot(logits, y).bool()
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
                f"RBFLoss: a logit is {logits.max().item():.4g}, but exp(logit) must be a probability: "
                "use a backbone whose logits are at most 0, such as ShallowRBF"
            )
        q = -logits.to(torch.promote_types(logits.dtype, torch.float32))
        return torch.where(q >= 0, q, math.nan)


def _log1mexp(q: Tensor) -> Tensor:
    """Return log(1 - exp(-q)), accurate for small and large q; below 2^-15 its value at 2^-15."""
    q = q.clamp(min=2**-15)  # where the gradient, 1 / q, still fits float16
    return torch.where(q < math.log(2), torch.log(-torch.expm1(-q)), torch.log1p(-torch.exp(-q)))


class LogisticLoss(Loss):
    """Logistic regression: one logit per example, [B] or [B, 1], targets int64 [B], 0 or 1.

    The mean of softplus(-s * logit), with s = -1 for class 0 and 1 for class 1 (Goodfellow et al. 2015, section 5).
    The probabilities are those of both classes, [B, 2].

    Raises:
        ValueError: the numbers of logits and targets differ, or a target is neither 0 nor 1. Values are checked on
            the CPU only, because a check would wait for the device; elsewhere the loss is NaN.
    """

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        logit = _single_logit(logits)
        if logit.shape != y.shape:
            raise ValueError(
                f"LogisticLoss: logits have the shape {list(logits.shape)} and targets {list(y.shape)}: "
                f"give one target per logit, int64 [{len(logit)}]"
            )
        return F.binary_cross_entropy_with_logits(logit, _binary_targets(y).to(logit.dtype))

    def probabilities(self, logits: Tensor) -> Tensor:
        logit = _single_logit(logits)
        return torch.stack([-logit, logit], dim=1).sigmoid()

    def predict(self, logits: Tensor) -> Tensor:
        return (_single_logit(logits) > 0).long()

    def check(self, logits: Tensor, y: Tensor) -> None:
        _check_labels(y, len(_single_logit(logits)))
        _binary_targets(y)

    def no_class(self, logits: Tensor) -> Tensor:
        """Return the cross-entropy with probability 1/2 as target, the mean over the batch."""
        logit = _single_logit(logits)
        return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, 0.5))


def adversarial_logistic(weight: Tensor, bias: Tensor | float, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Logistic loss under FGSM in closed form: the mean of softplus(eps * |w|_1 - s (w.x + b)).

    It equals `LogisticLoss` of the logit w.x + b at x + eps * sign(dJ/dx), not clipped, the worst point of the
    max-norm ball. Section 5 of Goodfellow et al. (2015) prints softplus(s (eps * |w|_1 - w.x - b)), which is right
    for s = 1; for s = -1 it rewards the adversary.

    Args:
        weight: w, [n] or [1, n].
        bias: b, a number or [1].
        x: Inputs, [B, ...] with n elements each.
        y: Targets, int64 [B], 0 or 1, that is s = -1 or 1.
        eps: Size of the perturbation in the max norm.

    Returns:
        The mean over the batch, a scalar.

    Raises:
        ValueError: a target is neither 0 nor 1; see `LogisticLoss`.
    """
    sign = 2 * _binary_targets(y).to(weight.dtype) - 1
    margin = sign * (x.flatten(1) @ weight.flatten() + bias) - eps * weight.abs().sum()
    return -F.logsigmoid(margin).mean()


def as_loss(loss_fn: Callable[[Tensor, Tensor], Tensor] | None) -> Loss:
    """Return `loss_fn` as a `Loss`. None means the cross-entropy of a softmax.

    Raises:
        TypeError: it is a class, or cannot be called.
    """
    if loss_fn is None:
        return SoftmaxLoss()
    if isinstance(loss_fn, type) or not callable(loss_fn):
        given = f"the class {loss_fn.__name__}" if isinstance(loss_fn, type) else repr(loss_fn)
        raise TypeError(
            f"loss_fn is {given}: pass a function (logits, y) -> mean loss, or an object such as "
            "torch.nn.CrossEntropyLoss(label_smoothing=0.1)"
        )
    if getattr(loss_fn, "reduction", "mean") == "sum":
        rank_zero_warn(
            f"{type(loss_fn).__name__} has reduction='sum', and J is the mean over a batch: figures of the loss are "
            "larger by the batch size. Leave reduction at 'mean'"
        )
    return loss_fn if isinstance(loss_fn, Loss) else CallableLoss(loss_fn)


NO_CLASS = -1
"""Stands for the class of an example whose logits are not finite. It differs from every label."""


def predicted_classes(loss_fn: Loss, logits: Tensor) -> Tensor:
    """Return the predicted class of each example, int64 [B]: that of `loss_fn.predict`, or `NO_CLASS`.

    An example has no class if one of its logits is NaN or inf, or all of them are -inf: `argmax` would name one all the
    same. A network may exclude single classes by -inf.

    Args:
        loss_fn: Says which class logits stand for.
        logits: [B, ...].
    """
    predicted = loss_fn.predict(logits)
    rows = logits.detach().unsqueeze(1) if logits.dim() == 1 else logits.detach().flatten(1)
    known = (rows < math.inf).all(dim=1) & (rows > -math.inf).any(dim=1)
    return torch.where(known, predicted, NO_CLASS) if predicted.shape == known.shape else predicted


# Checks of logits and labels: each raises ValueError.


def _check_classes(logits: Tensor) -> None:
    """Check that logits are [B, K] with K >= 2."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"logits have the shape {list(logits.shape)}, expected [B, K] with K >= 2 classes: use a backbone with one "
            "logit per class, or LogisticLoss for a single logit. One label per pixel is not supported"
        )


def _check_shapes(logits: Tensor, y: Tensor) -> None:
    """Check that logits are [B, K] with K >= 2, and that each row has a label."""
    _check_classes(logits)
    _check_labels(y, len(logits))


def _check_labels(y: Tensor, number: int) -> None:
    """Check that labels are int64 or uint8, [number]."""
    if y.dtype not in (torch.int64, torch.uint8) or y.shape != (number,):
        raise ValueError(
            f"labels are {y.dtype} {list(y.shape)} for {number} logits, expected class numbers, int64 [{number}]: "
            "convert one-hot rows with y.argmax(dim=1), or override unpack. A loss_fn of your own can train on other "
            "targets, but the error cannot be measured on them"
        )


def _check_range(y: Tensor, classes: int) -> None:
    """Check that labels are 0 to classes - 1. Waits for the device."""
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"labels range from {low} to {high}, but there are logits for {classes} classes: number the classes from "
            f"0 to {classes - 1}, or give the backbone more logits (num_classes)"
        )


def _single_logit(logits: Tensor) -> Tensor:
    """Return one logit per example, [B]."""
    if logits.dim() == 2 and logits.shape[1] == 1:
        return logits.squeeze(1)
    if logits.dim() != 1:
        raise ValueError(
            f"LogisticLoss: logits have the shape {list(logits.shape)}, expected [B] or [B, 1]: use a backbone with a "
            "single logit, such as LogisticRegression, or SoftmaxLoss for one logit per class"
        )
    return logits


def _binary_targets(y: Tensor) -> Tensor:
    """Return targets 0 and 1 as float32, and NaN for any other."""
    known = (y == 0) | (y == 1)
    if y.device.type == "cpu" and not known.all():
        raise ValueError(
            f"targets of a logistic loss must be 0 or 1, got {y[~known][0].item()}: choose two classes of the data; "
            "data.classes: [3, 7], for example, relabels them"
        )
    return torch.where(known, y.float(), math.nan)
