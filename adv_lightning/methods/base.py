"""What a training method is, and what it may ask of the module that it trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.constructor_arguments import KeepsArguments, plain_setting
from adv_lightning.attacks.description import describe, keyword_arguments
from adv_lightning.attacks.gradients import check_scalar
from adv_lightning.methods.perturbation_sites import Sites, with_gradient_of
from adv_lightning.methods.two_pass_objective import Objective, Passes


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


class Method(nn.Module, KeepsArguments):
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
        return self.loss(learner, x, with_gradient_of(x, self.craft(learner, x, y)), y)

    def after_backward(self, learner: Learner) -> None:
        """Run when the gradients are there, before the optimizer's step; once for each backward pass."""

    def sites_for(self, owner: str) -> Sites:
        """Return the sites for a callback to change.

        Args:
            owner: Who asks, for the error.

        Raises:
            ValueError: this method has none, so the callback would do nothing.
        """
        if self.sites is None:
            raise ValueError(
                f"{owner} would do nothing: {type(self).__name__} perturbs the input by its own attack only. "
                f"Train with method=Mixed, or remove {owner}"
            )
        return self.sites

    def config(self) -> dict[str, Any]:
        """Describe the method as the `{class_path, init_args}` from which YAML builds it."""
        return describe(self)

    def extra_repr(self) -> str:
        return keyword_arguments(self)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, plain_setting(self, name, value))


def check_unused(method: Method, owner: str, *, asked: bool, passes: bool, perturbed: bool) -> None:
    """Refuse an objective that ignores what a callback or the module has asked of the method.

    Args:
        method: The method.
        owner: Name of the module that is trained, for the error.
        asked: Whether the module's objective called the method's.
        passes: Whether the module's objective has looked at the method's passes itself.
        perturbed: Whether the objective had an adversarial part. With alpha = 1 there is none, and nothing to perturb.

    Raises:
        ValueError: a callback has changed the method's sites and they were not used; or the method was not asked,
            although its passes are not the default ones or it is not `Mixed`.
    """
    ignored = []
    if (sites := method.sites) is not None:
        if (perturbed or not asked) and not all(site.used for site in sites.layers):
            ignored.append(f"the perturbation of {', '.join(map(repr, sites.layers))} (HiddenPerturbation)")
        if sites.input_rule is not None and not sites.used:
            ignored.append(f"{sites.input_rule!r} at the input (InputNoise)")
        if not sites.perturb_input and not sites.used:
            ignored.append("perturb_input=False (HiddenPerturbation)")
        asked = asked or sites.used
    chosen = getattr(method, "passes", None)
    if not asked and chosen is None:
        ignored.append(f"method={type(method).__name__}")
    elif not asked and not passes and chosen != Passes():
        ignored.append(f"{chosen!r}")
    if ignored and asked:
        raise ValueError(
            f"{type(method).__name__} ignores {' and '.join(ignored)}: build its objective on super().objective, or "
            "remove what is ignored"
        )
    if ignored:
        raise ValueError(
            f"{owner}.objective does not call super().objective(x, y), so it ignores {' and '.join(ignored)}: call it, "
            "or remove what is ignored"
        )


def check_objective(objective: object, owner: str) -> Objective:
    """Return the objective, or raise TypeError if it is something else, ValueError if its total is no scalar."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"the objective of {owner} is a {type(objective).__name__}: return an Objective(total, clean, adversarial)"
        )
    check_scalar(objective.total)
    return objective


def check_after_backward(method: Method, owner: str) -> None:
    """Raise ValueError if the method acts after the backward pass; called where its hook did not run."""
    if type(method).after_backward is not Method.after_backward:
        raise ValueError(
            f"{type(method).__name__} acts after the backward pass, and {owner}.on_after_backward keeps it from that: "
            "call super().on_after_backward() there"
        )


def replaced(former: object, new: object) -> Method:
    """Return the method that takes the place of another, with what callbacks have asked of that one.

    Raises:
        TypeError: it is not a Method.
        ValueError: callbacks have changed the former's sites, and the new method has none.
    """
    if not isinstance(new, Method):
        raise TypeError(f"method={new!r} is a {type(new).__name__}: pass a Method such as Mixed(FGSM(eps=0.25))")
    sites = former.sites if isinstance(former, Method) else None
    if sites is not None and sites.changed:
        new.sites_for("A callback that changes the sites (InputNoise, HiddenPerturbation)")
        new.sites = sites
    return new
