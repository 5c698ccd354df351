"""The paper's mixed objective, in two forward and two backward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn

from adv_lightning.attacks.gradients import LossFn, gradients, per_example
from adv_lightning.attacks.model_mode import eval_mode, is_compiled, kept_buffers, private_copy
from adv_lightning.methods.gradient_replay import ReplayGradient, cut_loose, leaves
from adv_lightning.methods.perturbation_sites import PerturbationSite
from adv_lightning.methods.shared_masks import SharedMasks

Crafting = Literal["train", "eval"]
Masks = Literal["fresh", "shared"]
Statistics = Literal["both", "clean"]


@dataclass(frozen=True)
class Passes:
    """How one training step runs the network. The choices differ only where there is dropout or BatchNorm.

    Args:
        crafting: Mode in which the attack's gradient is taken. "train" shares the clean pass, its dropout mask
            included; "eval" takes one more forward and backward pass, with dropout off.
        masks: "fresh" draws new dropout masks for the adversarial pass; "shared" reuses those of the clean pass.
        statistics: Which passes update BatchNorm's running statistics, and any other buffer that the network updates in
            train mode: "both", or only the "clean" one.

    Raises:
        ValueError: an argument has another value.
    """

    crafting: Crafting = "train"
    masks: Masks = "fresh"
    statistics: Statistics = "both"

    def __post_init__(self) -> None:
        for name, words in (("crafting", Crafting), ("masks", Masks), ("statistics", Statistics)):
            if getattr(self, name) not in get_args(words):
                raise ValueError(f"{name}={getattr(self, name)!r}: give one of {', '.join(get_args(words))}")


@dataclass(frozen=True)
class Objective:
    """The loss to minimise and its parts.

    Attributes:
        total: alpha * J(x) + (1 - alpha) * J(x_adv), a scalar with gradient.
        clean: J(x), detached; None without a clean pass.
        adversarial: J(x_adv), detached; None without an adversarial pass.
        logits: Logits of the clean pass, [B, K], detached, or None.
        adversarial_logits: Logits of the adversarial pass, [B, K], detached, or None.
    """

    total: Tensor
    clean: Tensor | None = None
    adversarial: Tensor | None = None
    logits: Tensor | None = None
    adversarial_logits: Tensor | None = None


def adversarial_objective(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss_fn: LossFn,
    sites: Sequence[PerturbationSite],
    alpha: float,
    passes: Passes | None = None,
    scale: Tensor | None = None,
    replay: bool | None = None,
) -> Objective:
    """Compute alpha * J(x) + (1 - alpha) * J(x_adv), x_adv a constant (Goodfellow et al. 2015, section 6).

    One `torch.autograd.grad` of the clean loss gives the directions of all sites and the clean half of the
    parameter gradient. That half is replayed when `total` is differentiated. So a step takes two forward and two
    backward passes. The second backward pass is an ordinary `total.backward()`, in which the hooks of DDP,
    accumulation and gradient scaling work as usual. With alpha = 1, or without a rule at any site, a step takes one
    pass of each kind.

    Args:
        model: x -> logits. All that the clean loss depends on is trained, whether or not it is among the model's
            parameters.
        x: Inputs, floating point, [B, ...]; not changed in place. If x itself requires a gradient, it gets that of both
            passes, and the perturbation counts as a constant.
        y: Targets, passed to `loss_fn`.
        loss_fn: (logits, y) -> mean loss over the batch.
        sites: Where the second pass is perturbed. Sites without a rule do nothing.
        alpha: Weight of the clean loss, in [0, 1].
        passes: How the network runs in each pass; by default `Passes()`.
        scale: A GradScaler's factor, a scalar tensor. The inner gradient is multiplied by it, so that it does not
            underflow in half precision, and divided again. None: the model's `gradient_scale`, if it has one.
        replay: False keeps the clean pass's graph until `total` is differentiated, which costs half a backward pass
            and memory. Sharded parameters need this. It is also done where parameters have hooks, where x requires a
            gradient, and where a rule is differentiable: then x_adv is not a constant, and training differentiates
            through it. None: True, unless the model says that it is `sharded`.

    Raises:
        ValueError: the loss does not depend differentiably on the value of a site, or a rule is differentiable and
            the model is compiled.
    """
    passes = passes or Passes()
    scale = getattr(model, "gradient_scale", None) if scale is None else scale
    replay = not getattr(model, "sharded", False) if replay is None else replay
    active = [site for site in sites if site.rule is not None]
    if alpha == 1 or not active:
        logits = model(private_copy(model, x))
        loss = loss_fn(logits, y)
        return Objective(loss, clean=loss.detach(), logits=logits.detach())

    clean: _Clean | None = None
    directions: Mapping[PerturbationSite, Tensor] = {}
    climbing = [site for site in active if site.needs_grad]
    if climbing and passes.crafting == "eval":
        with eval_mode(model), kept_buffers(model):  # a layer may stay in train mode
            directions = _linearise(model, x, y, loss_fn, climbing, scale=scale).directions
        climbing = []
    masks = SharedMasks(x.device) if passes.masks == "shared" else None
    if climbing:
        clean = _linearise(
            model, x, y, loss_fn, climbing, weight=alpha or 1, scale=scale, trained=alpha > 0, replay=replay
        )
        directions = clean.directions
    elif alpha > 0:
        logits = model(private_copy(model, x))
        clean = _Clean(logits, loss_fn(logits, _copy(y)))

    # Without a clean pass in train mode, only the adversarial pass can update the statistics.
    keep = kept_buffers(model) if passes.statistics == "clean" and clean is not None else nullcontext()
    with keep as kept:
        with masks.repeated(active) if masks else nullcontext(), ExitStack() as stack:
            x_adv = x
            for site in active:
                x_adv = stack.enter_context(site.perturbed(x_adv, directions.get(site)))
            adversarial_logits = model(private_copy(model, x_adv))
        if kept is not None:
            kept.follow(adversarial_logits)
        adversarial = loss_fn(adversarial_logits, y)  # it may have buffers too
    if clean is None or alpha == 0:
        return Objective(adversarial, None, adversarial.detach(), None, adversarial_logits.detach())
    known, total = alpha * clean.loss, (1 - alpha) * adversarial
    total = ReplayGradient.apply(total, known, scale, clean.grads, *clean.params) if clean.grads else known + total
    return Objective(
        total=total,
        clean=clean.loss.detach(),
        adversarial=adversarial.detach(),
        logits=clean.logits.detach(),
        adversarial_logits=adversarial_logits.detach(),
    )


class _Clean(NamedTuple):
    """The clean pass: its logits, its loss and the sites' directions.

    `grads` are the gradients of `weight * loss` with respect to `params`, to be replayed; None where the loss still
    has its graph.
    """

    logits: Tensor
    loss: Tensor
    directions: Mapping[PerturbationSite, Tensor] = MappingProxyType({})
    grads: list[Tensor] | None = None
    params: Sequence[Tensor] = ()


def _linearise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss_fn: LossFn,
    sites: Sequence[PerturbationSite],
    *,
    weight: float = 1,
    scale: Tensor | None,
    trained: bool = False,
    replay: bool = True,
) -> _Clean:
    """Run the clean pass and differentiate its loss with respect to every site.

    If the loss is `trained` on, the gradient of all that it depends on is taken too, to be replayed, or else its graph
    is kept.
    """
    with ExitStack() as stack:
        x_seen = x
        for site in sites:
            x_seen = stack.enter_context(site.recorded(x_seen))
        logits = model(private_copy(model, x_seen))
        loss = loss_fn(logits, _copy(y))
    differentiable = any(site.differentiable for site in sites)
    if differentiable:
        _check_twice_differentiable(model)
    values = [site.take() for site in sites]
    reached: list[Tensor] = []
    if trained and replay and not differentiable and not x.requires_grad:
        reached = [leaf for leaf in leaves(loss) if all(leaf is not value for value in values)]
    # autograd.grad fires these hooks, and the replay would fire them again.
    replay = bool(reached) and not any(leaf._backward_hooks for leaf in reached)
    # The gradients carry the weight from the start, which saves a multiplication in the replay.
    factor = weight if scale is None else weight * scale
    retain = trained and not replay
    # A kept graph is differentiated again later, and layers under torch.utils.checkpoint run again each time.
    with kept_buffers(model) if retain else nullcontext():
        climbed, found = gradients(
            loss,
            values,
            reached if replay else (),
            scale=factor,
            retain_graph=retain,
            create_graph=differentiable,
        )
    directions = {s: per_example(g, len(x), factor) for s, g in zip(sites, climbed, strict=True)}
    if not replay:
        return _Clean(logits, loss, directions)
    return _Clean(logits.detach(), loss.detach(), directions, cut_loose(found), reached)


def _copy(y: Any) -> Any:
    """Return targets that a loss may change, as one that smooths them in place does."""
    return y.clone() if isinstance(y, Tensor) else y


def _check_twice_differentiable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if is_compiled(module):
            raise ValueError(
                f"{name or type(model).__name__!r} is compiled, and torch.compile has no second derivative, which "
                "training through a differentiable perturbation needs: leave out the compilation, or differentiable"
            )
