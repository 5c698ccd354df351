"""Checks of batches, logits and arguments: bad input is named before it fails somewhere in torch.

Length: many small checks, each with its message.
"""

from __future__ import annotations

import math
from numbers import Real
from types import TracebackType
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adv_lightning.attacks.base import Attack, SingleStepAttack
from adv_lightning.attacks.threat_model import Ball
from adv_lightning.losses import Loss

_PIXELS = 32
"""Sizes of up to so many 255ths are taken for sizes of pixels."""
_FLOAT16 = ". In float16 small gradients are 0 and perturb nothing, and Adam's eps of 1e-8 is 0: give it eps=1e-4"
_SLACK = 1e-3
"""How far an input may lie outside an attack's bounds, as a share of their range: bounds may be rounded."""


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return (x, y).

    Raises:
        TypeError: the batch is not a pair, or one of tensors.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        parts = f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        raise TypeError(
            f"the batch is a {type(batch).__name__}{parts}, not a pair (x, y): override unpack(batch) in a subclass of "
            "AdversarialModule and return the inputs and the labels"
        )
    x, y = batch
    if all(isinstance(part, tuple | list) and part and isinstance(part[0], Tensor) for part in (x, y)):
        raise TypeError(
            "the batch is a list of two batches, as several training dataloaders give it: join the data sets with "
            "torch.utils.data.ConcatDataset, or override unpack(batch)"
        )
    if isinstance(y, tuple | list) and y and isinstance(y[0], str):
        raise TypeError(f"labels are a {type(y).__name__} of str, such as {y[0]!r}: number the classes from 0")
    for name, part in (("inputs", x), ("labels", y)):
        if isinstance(part, np.ndarray):
            raise TypeError(
                f"{name} are a numpy array: let collate_fn return tensors (torch.from_numpy), or override unpack(batch)"
            )
    return x, y


def number_of(x: Any, y: Any) -> int:
    """Return the number of examples of a batch, or 1 if neither its targets nor its inputs are a tensor."""
    return next((len(part) for part in (y, x) if isinstance(part, Tensor) and part.dim()), 1)


def check_inputs(x: Tensor, *attacks: Attack | None, sized: bool = False) -> None:
    """Check the values of the inputs, which waits for the device.

    Args:
        x: Inputs.
        *attacks: Their bounds must hold the inputs.
        sized: Whether to warn of an eps that is not in the units of the inputs.

    Raises:
        ValueError: a value is NaN or infinite, or lies outside the bounds of an attack.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
        return
    low, high = torch.stack(x.detach().aminmax()).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"{int((~x.isfinite()).sum())} of the {x.numel()} input values of a batch are NaN or infinite: remove "
            "such examples from the data, or replace the values with torch.nan_to_num"
        )
    for attack in attacks:
        ball = None if attack is None else attack.ball()
        bounds = getattr(attack, "bounds", None) if ball is None else ball.bounds
        if sized and ball is not None:
            _warn_of_size(ball, low, high, repr(attack))
        if bounds is None or not _is_pair(bounds):
            continue  # unclipped, or bounds of another kind, which the attack itself must check
        slack = _SLACK * (bounds[1] - bounds[0])
        if not bounds[0] - slack <= low <= high <= bounds[1] + slack:
            raise ValueError(
                f"inputs lie in [{low:.6g}, {high:.6g}], outside the bounds of {attack!r}: divide pixels of 0 to 255 "
                "by 255, normalise inside the network (Normalized), or set bounds to the range of the inputs, or to "
                "null for no clipping"
            )


def _warn_of_size(ball: Ball, low: float, high: float, attack: str) -> None:
    """Warn of an eps in the max norm that belongs to other units than inputs from `low` to `high`."""
    if ball.norm != math.inf or not isinstance(ball.eps, Real):
        return
    eps, steps = float(ball.eps), float(ball.eps) * 255
    if eps > max(high - low, 1):
        rank_zero_warn(
            f"{attack}: eps is larger than the range of the inputs, [{low:.4g}, {high:.4g}]. It is in the units of the "
            f"inputs: for pixels in [0, 1] give eps={eps:g}/255"
        )
    elif 1 <= round(steps) <= _PIXELS and abs(steps - round(steps)) < 1e-6 and (low < -_SLACK or high > 1 + _SLACK):
        rank_zero_warn(
            f"{attack}: eps is {round(steps)}/255, a size for pixels in [0, 1], but the inputs lie in [{low:.4g}, "
            f"{high:.4g}], and eps is in their units. Give the network pixels in [0, 1] and normalise inside it "
            "(Normalized), or divide eps by the std"
        )


class BatchCheck:
    """Checks one batch, as a context manager around its passes.

    Shapes are checked in every batch. Values are checked only in the first batch of an epoch or evaluation, since that
    waits for the device: those of the inputs and labels, and whether the attack changes any input. In an evaluation on
    the CPU labels are checked in every batch.

    Args:
        model: The network, which returns the logits.
        x: Inputs.
        y: Labels.
        attack: Perturbs the inputs. None: nothing does.
        loss: Says which logits and labels it takes. None: only the inputs are checked.
        first: Whether this is the first batch.
        judged: Whether predictions are counted, so that labels must match the logits whatever the loss is. In training
            labels are checked where `loss` is called.
        moved: Whether to warn of an attack that changes no input.

    Raises:
        TypeError: the backbone does not return a tensor.
        ValueError: the batch is empty, or the numbers of inputs and labels differ; inputs, logits or labels are
            invalid; or BatchNorm trains on a single example.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        attack: Attack | None,
        loss: Loss | None,
        *,
        first: bool,
        judged: bool = False,
        moved: bool = False,
    ) -> None:
        self.model, self.x, self.y, self.attack, self.loss, self.first = model, x, y, attack, loss, first
        self.judged, self.moved = judged, moved
        self._hooks: list[RemovableHandle] = []
        self._passes = 0

    def __enter__(self) -> None:
        x, y = self.x, self.y
        tensors = isinstance(x, Tensor) and isinstance(y, Tensor)
        if self.loss is not None and tensors and x.shape[:1] != y.shape[:1]:
            raise ValueError(
                f"inputs have shape {list(x.shape)} and labels {list(y.shape)}: a batch needs one label per input"
            )
        if tensors and x.shape[:1] == (0,):
            raise ValueError("the batch is empty: let the loader leave out batches without an example")
        if self.first:
            check_inputs(x, self.attack, sized=True)
        # On the CPU no one waits, and elsewhere a label below 0 is found at the end of the epoch.
        if self.loss is not None and (self.first or (self.judged and tensors and y.device.type == "cpu")):
            self._hooks.append(self.model.register_forward_hook(self._after))
            if not self.judged:
                self._hooks.append(self.loss.register_forward_pre_hook(self._before_loss))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        if isinstance(error, ValueError) and "Expected more than 1 value per channel" in str(error):
            raise ValueError(
                "BatchNorm cannot train on a batch of one example: choose a batch_size that leaves no single example "
                "at the end of an epoch, or drop the last batch (drop_last=True of a DataLoader)"
            ) from None

    def _after(self, model: nn.Module, args: tuple[Any, ...], logits: Any) -> None:
        """Check one forward pass."""
        assert self.loss is not None
        self._passes += 1
        x = args[0] if args else self.x
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"the backbone returns a {type(logits).__name__}, expected the logits as one tensor [B, K]: wrap it in "
                "a module that returns them, or override forward"
            )
        if not logits.is_floating_point() or logits.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"the backbone returns {logits.dtype} of shape {list(logits.shape)} for {len(x)} inputs, expected "
                f"floating-point logits [{len(x)}, K]"
            )
        if self.judged and self._passes == 1 and len(x) <= len(self.y):
            self.loss.check(logits, self.y[: len(x)])
        if self.first and self._passes == 2 and isinstance(self.attack, SingleStepAttack) and self._unmoved(x):
            rank_zero_warn(
                f"{self.attack!r} changes no input of this batch, because the gradient is zero or NaN. The error under "
                "this attack means nothing. Look for rounding or another step function in the backbone, or for logits "
                "so large that the loss is exactly 0"
            )

    def _before_loss(self, loss: nn.Module, args: tuple[Any, ...]) -> None:
        """Check the targets of the first loss."""
        assert self.loss is not None
        self.loss.check(*args)
        self._hooks.pop().remove()

    def _unmoved(self, x: Tensor) -> bool:
        """Whether the second pass of an evaluation, under attack, has the same inputs as the first."""
        if not self.moved:
            return False
        eps = getattr(self.attack, "eps", 1)
        moves = getattr(self.attack, "needs_grad", False) and not (isinstance(eps, Real) and eps == 0)
        return moves and torch.equal(x, self.x[: len(x)])


def check_single_loader(dataloader_idx: int | None, stage: str) -> None:
    """Raise ValueError if there are several loaders; Lightning gives an index only then."""
    if dataloader_idx is not None:
        raise ValueError(
            f"there are several {stage} dataloaders, and the error rates are those of one: evaluate each set in its "
            "own call of trainer.validate or trainer.test, or join them with torch.utils.data.ConcatDataset"
        )


def check_attack(attack: Any) -> None:
    """Raise TypeError unless `attack` is an Attack or None."""
    if attack is not None and not isinstance(attack, Attack):
        raise TypeError(
            f"attack={attack!r} is a {type(attack).__name__}: pass an Attack such as FGSM(eps=0.25), or None for none"
        )


def _is_pair(bounds: Any) -> bool:
    return isinstance(bounds, tuple | list) and len(bounds) == 2 and all(isinstance(each, Real) for each in bounds)


def warn_of_training_steps(backbone: nn.Module) -> None:
    """Warn of a backbone that is, or has in it, what trains itself: a LightningModule of another kind."""
    for name, part in backbone.named_modules():
        kinds = [kind for kind in type(part).__mro__ if "training_step" in vars(kind)]
        own = [kind for kind in kinds if not kind.__module__.startswith(("lightning.", "pytorch_lightning."))]
        if own and not hasattr(part, "objective"):
            place = f"the backbone ({name})" if name else "the backbone"
            rank_zero_warn(
                f"{place} is a {type(part).__name__}, which has a training_step: only its forward is used here, not "
                "its training_step, optimizer and logging. Pass its network as the backbone, and override loss and "
                "unpack of AdversarialModule for what its training_step does"
            )


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ValueError unless `value` is a number from `low` to `high`."""
    if not isinstance(value, Real) or not low <= value <= high:
        allowed = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name}={value!r}: give a number {allowed}")


def warn_of_rounding(precision: str) -> None:
    """Warn where a trainer's precision rounds the inputs, and so the perturbation.

    Args:
        precision: As Lightning writes it, such as "bf16-true".
    """
    half = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
    if precision in half:
        beside = _FLOAT16 if precision == "16-true" else ""
        rank_zero_warn(
            f"precision {precision} rounds the inputs: pixels in [0, 1] move by up to "
            f"{torch.finfo(half[precision]).eps / 4:.1g}, so the perturbation is not exactly the attack's. "
            f"Use {precision.replace('true', 'mixed')}, which does not round inputs{beside}"
        )
