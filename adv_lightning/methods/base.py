"""What a training method is, and what it may ask of the module that it trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.config import describe, keyword_arguments
from adv_lightning.methods.objective import Objective, Passes
from adv_lightning.methods.sites import Sites


class Learner(Protocol):
    """All that a method may ask of what it trains. It is an `nn.Module` too; `AdversarialModule` is one."""

    @property
    def gradient_scale(self) -> Tensor | None:
        """The GradScaler's factor, a scalar tensor; None where there is no scaler."""

    @property
    def sharded(self) -> bool:
        """Whether parameters are spread over processes (FSDP, DeepSpeed)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits, [B, K]."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return J, the mean loss over the batch, a scalar."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that are trained, and those that are frozen."""


class Method(nn.Module):
    """Turns one batch into the objective to minimise: craft adversarial inputs, then compute the loss.

    Define `loss`; override `craft` for other adversarial inputs, or `objective` to share passes between the two.
    A method has no parameters. Keep every constructor argument as an attribute of the same name, so that checkpoints
    can describe the method.

    Attributes:
        attack: What crafts, and what judges the module if it has no `val_attack`. None: nothing.
        sites: What callbacks such as HiddenPerturbation and InputNoise may change. None: this method perturbs the
            input by its attack and nothing else, and such callbacks are refused.
    """

    attack: Attack | None
    sites: Sites | None

    def __init__(self) -> None:
        super().__init__()
        self.attack = None
        self.sites = None

    def craft(self, learner: Learner, x: Tensor, y: Tensor) -> Tensor:
        """Return adversarial inputs, shaped as x, detached."""
        if self.attack is None:
            raise ValueError(f"{type(self).__name__} has no attack to craft with: give it one, such as PGD(eps=8/255)")
        return self.attack(learner, x, y, loss_fn=learner.loss)

    def loss(self, learner: Learner, x: Tensor, x_adv: Tensor, y: Tensor) -> Objective:
        """Return the objective of inputs x, [B, ...], adversarial inputs x_adv and targets y."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(learner, x, x_adv, y)")

    def objective(self, learner: Learner, x: Tensor, y: Tensor) -> Objective:
        """Return the objective of one batch."""
        return self.loss(learner, x, self.craft(learner, x, y), y)

    def after_backward(self, learner: Learner) -> None:
        """Run when the gradients are there, before the optimizer's step; once for each backward pass."""

    def config(self) -> dict[str, Any]:
        """Describe the method as the `{class_path, init_args}` from which YAML builds it."""
        return describe(self)

    def extra_repr(self) -> str:
        return keyword_arguments(self)


def inactive(method: Method, *, passes: bool) -> str:
    """Return what an objective ignores that never asks the method: what was changed from the defaults; "" for nothing.

    Args:
        method: The method that was not asked.
        passes: Whether the objective has looked at the method's passes itself.
    """
    ignored = []
    if (sites := method.sites) is not None:
        if not all(site.used for site in sites.layers):
            ignored.append(f"the perturbation of {', '.join(map(repr, sites.layers))}")
        if sites.input_rule is not None:
            ignored.append(f"the rule {sites.input_rule!r} at the input")
        if not sites.perturb_input:
            ignored.append("that the input is not to be perturbed")
    chosen = getattr(method, "passes", None)
    if chosen is None:
        ignored.append(f"the method {method!r}")
    elif not passes and chosen != Passes():
        ignored.append(f"{chosen!r}")
    return " and ".join(ignored)
