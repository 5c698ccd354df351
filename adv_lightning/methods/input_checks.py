"""What a batch must be, and what a backbone must make of it: what is wrong is named before torch stumbles over it."""

from __future__ import annotations

import math
from numbers import Real
from types import TracebackType
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adv_lightning.attacks.base import Attack, SingleStepAttack
from adv_lightning.losses import Loss

_SLACK = 1e-3
"""How far, in parts of the range, an input may lie beyond an attack's bounds, which may be rounded figures."""


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return (x, y).

    Raises:
        TypeError: a batch is no such pair.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        parts = f" of {len(batch)}" if isinstance(batch, tuple | list | dict) else ""
        raise TypeError(
            f"a batch is a {type(batch).__name__}{parts}, and not a pair (x, y): override unpack(batch) in a subclass "
            "of AdversarialModule, so that it returns the inputs and the labels"
        )
    x, y = batch
    return x, y


def check_inputs(x: Tensor, *attacks: Attack | None) -> None:
    """Look at the values of the inputs, which waits for the device.

    Raises:
        ValueError: one is NaN or infinite, or lies outside the bounds of an attack.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0:
        return
    low, high = torch.stack(x.detach().aminmax()).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"{int((~x.isfinite()).sum())} of the {x.numel()} values of a batch's inputs are NaN or infinite: leave "
            "such examples out of the data, or replace the values, as torch.nan_to_num does"
        )
    for attack in attacks:
        bounds = getattr(attack, "bounds", None)
        slack = 0 if bounds is None else _SLACK * (bounds[1] - bounds[0])
        if bounds is not None and not bounds[0] - slack <= low <= high <= bounds[1] + slack:
            raise ValueError(
                f"inputs go from {low:.6g} to {high:.6g}, and {attack!r} clips to its bounds: divide pixels of 0 to "
                "255 by 255, let the network normalise inside itself (Normalized), or give the bounds of what it is "
                "shown, or null for unclipped"
            )


class BatchCheck:
    """Around the passes of one batch: says what is wrong with it.

    Shapes are looked at in every batch, values in the first of an epoch or evaluation alone, since that waits for the
    device: those of the inputs, those of the labels, and whether the attack moves an input at all.

    Args:
        model: The module, whose backbone gives the logits.
        x: Inputs.
        y: Labels.
        attack: Perturbs the inputs; None: nothing does.
        loss: Knows what logits and labels it takes. None: only the inputs are looked at.
        first: Whether it is the first batch.
        judged: Whether the logits will be judged, so that labels must suit them whatever the loss in use. In training
            the labels are looked at where `loss` is called.
        moved: Whether to warn of an attack that leaves all inputs as they are.

    Raises:
        TypeError: the backbone gives no tensor.
        ValueError: there are not as many labels as inputs; inputs, logits or labels are not what they must be; or
            BatchNorm trains on a single example.
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
                f"inputs of shape {list(x.shape)} and labels of {list(y.shape)}: a batch must have as many of both"
            )
        if self.first:
            check_inputs(x, self.attack)
        if self.first and self.loss is not None:
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
                "a batch of one example, of which BatchNorm can take no variance in training: choose a batch_size that "
                "leaves no single example at the end of an epoch, or drop the last batch (drop_last of a DataLoader)"
            ) from None

    def _after(self, model: nn.Module, args: tuple[Any, ...], logits: Any) -> None:
        """Look at one forward pass."""
        assert self.loss is not None
        self._passes += 1
        x = args[0] if args else self.x
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"the backbone gives a {type(logits).__name__}, and not the logits as one tensor [B, K]: wrap it in a "
                "module that returns these, or override forward"
            )
        if not logits.is_floating_point() or logits.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"the backbone gives {logits.dtype}, {list(logits.shape)}, for {len(x)} inputs: it must give logits, "
                f"floating point, [{len(x)}, K]"
            )
        if self.judged and self._passes == 1 and len(x) <= len(self.y):
            self.loss.check(logits, self.y[: len(x)])
        if self._passes == 2 and isinstance(self.attack, SingleStepAttack) and self._unmoved(x):
            rank_zero_warn(
                f"{self.attack!r} leaves every input of the batch as it is, since the gradient is zero there, or NaN: "
                "look for rounding or another step function in the backbone, or for logits so large that the loss is "
                "exactly 0. What is measured under it says nothing"
            )

    def _before_loss(self, loss: nn.Module, args: tuple[Any, ...]) -> None:
        """Look at the targets of the first loss."""
        assert self.loss is not None
        self.loss.check(*args)
        self._hooks.pop().remove()

    def _unmoved(self, x: Tensor) -> bool:
        """Whether the second pass of an evaluation, which is under attack, is of the same inputs as the first."""
        if not self.moved:
            return False
        moves = getattr(self.attack, "needs_grad", False) and getattr(self.attack, "eps", 1) != 0
        return moves and torch.equal(x, self.x[: len(x)])


def check_single_loader(dataloader_idx: int | None, stage: str) -> None:
    """Raise ValueError if there are several loaders; Lightning gives an index only then."""
    if dataloader_idx is not None:
        raise ValueError(
            f"there are several {stage} loaders, and the module counts over one: judge each set in a call of its own, "
            "trainer.validate or trainer.test, or join them with torch.utils.data.ConcatDataset"
        )


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ValueError unless `value` is a number from `low` to `high`."""
    if not isinstance(value, Real) or not low <= value <= high:
        allowed = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name}={value!r}: give a number {allowed}")
