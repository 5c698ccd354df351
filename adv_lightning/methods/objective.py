"""The mixed objective of adversarial training, in two forward and two backward passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from adv_lightning.attacks.base import LossFn, gradients, per_example
from adv_lightning.attacks.contexts import eval_mode, frozen_statistics
from adv_lightning.methods.replay import ReplayGradient, cut_loose
from adv_lightning.methods.sites import PerturbationSite

Crafting = Literal["train", "eval"]
Masks = Literal["fresh", "shared"]
Statistics = Literal["both", "clean"]


@dataclass(frozen=True)
class Passes:
    """How one training step runs the network. The choices differ only where there is dropout or BatchNorm.

    Args:
        crafting: Mode in which the attack's gradient is taken. "train" shares the clean pass, its dropout mask
            included; "eval" takes one more forward and backward pass, with dropout off.
        masks: "fresh" lets the adversarial pass draw dropout masks of its own; "shared" repeats the clean pass's.
        statistics: The passes that update BatchNorm's running statistics: "both", or the "clean" one alone.

    Raises:
        ValueError: an argument is not one of the words above.
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
        clean: J(x), detached; None where no clean pass was made.
        adversarial: J(x_adv), detached; None where no perturbed pass was made.
        logits: Logits of the clean pass, [B, K], detached, or None.
        adversarial_logits: Logits of the perturbed pass, [B, K], detached, or None.
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
    parameter gradient, which is replayed when `total` is differentiated. A step so takes two forward and two
    backward passes, the second of them an ordinary `total.backward()` in which the hooks of DDP, accumulation and
    gradient scaling do their work. With alpha = 1, or with no rule at any site, it takes one of each.

    Args:
        model: x -> logits. Its parameters that require a gradient are listed anew at each call.
        x: Inputs, floating point, [B, ...]; never changed in place.
        y: Targets, as `loss_fn` takes them.
        loss_fn: (logits, y) -> mean loss over the batch.
        sites: Where the second pass is perturbed; those without a rule are left alone.
        alpha: Weight of the clean loss, in [0, 1].
        passes: How the network runs in each pass; by default `Passes()`.
        scale: A GradScaler's factor, a scalar tensor: the inner gradient carries it, so that half precision does
            not underflow, and it is divided out again. None: the model's `gradient_scale`, if it has one.
        replay: False keeps the clean pass's graph until `total` is differentiated, at the price of half a backward
            pass and of memory. It is needed where parameters are sharded, and taken where they have hooks and where
            a rule is differentiable: then x_adv is no constant, and training goes through its gradient too. None:
            True, unless the model says that it is `sharded`.

    Raises:
        ValueError: the loss does not depend differentiably on the value of a site, or a rule is differentiable and
            the model compiled.
    """
    passes = passes or Passes()
    scale = getattr(model, "gradient_scale", None) if scale is None else scale
    replay = not getattr(model, "sharded", False) if replay is None else replay
    active = [site for site in sites if site.rule is not None]
    if alpha == 1 or not active:
        logits = model(x)
        loss = loss_fn(logits, y)
        return Objective(loss, clean=loss.detach(), logits=logits.detach())

    clean: _Clean | None = None
    directions: Mapping[PerturbationSite, Tensor] = {}
    climbing = [site for site in active if site.needs_grad]
    if climbing and passes.crafting == "eval":
        with eval_mode(model):
            directions = _linearise(model, x, y, loss_fn, climbing, scale=scale).directions
        climbing = []
    draws = _Draws(x.device) if passes.masks == "shared" else None
    if climbing:
        params = [p for p in model.parameters() if p.requires_grad] if alpha > 0 else []
        # autograd.grad fires these hooks, and the replay would fire them again.
        hooked = any(p._backward_hooks for p in params)
        clean = _linearise(
            model, x, y, loss_fn, climbing, params, weight=alpha or 1, scale=scale, replay=replay and not hooked
        )
        directions = clean.directions
    elif alpha > 0:
        logits = model(x)
        clean = _Clean(logits, loss_fn(logits, y))

    # Without a clean pass in train mode the perturbed one is all that the statistics ever see.
    frozen = frozen_statistics(model) if passes.statistics == "clean" and clean is not None else nullcontext()
    with frozen, draws.repeated() if draws else nullcontext(), ExitStack() as stack:
        x_adv = x
        for site in active:
            x_adv = stack.enter_context(site.perturbed(x_adv, directions.get(site)))
        adversarial_logits = model(x_adv)
    adversarial = loss_fn(adversarial_logits, y)
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

    `grads` are those of `weight * loss` by `params`, to be replayed; None where the loss still has its graph.
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
    params: Sequence[Tensor] = (),
    *,
    weight: float = 1,
    scale: Tensor | None,
    replay: bool = True,
) -> _Clean:
    """Run the clean pass and differentiate its loss by the value of every site, and by `params` if replayed."""
    with ExitStack() as stack:
        x_seen = x
        for site in sites:
            x_seen = stack.enter_context(site.recorded(x_seen))
        logits = model(x_seen)
        loss = loss_fn(logits, y)
    differentiable = any(site.differentiable for site in sites)
    if differentiable:
        _check_twice_differentiable(model)
    replay = bool(params) and replay and not differentiable
    # The gradients carry the weight from the start, so that the replay need not multiply by it.
    factor = weight if scale is None else weight * scale
    values, found = gradients(
        loss,
        [site.take() for site in sites],
        params if replay else (),
        scale=factor,
        retain_graph=bool(params) and not replay,
        create_graph=differentiable,
    )
    directions = {s: per_example(g, len(x), factor) for s, g in zip(sites, values, strict=True)}
    if not replay:
        return _Clean(logits, loss, directions)
    # A parameter that the loss does not reach stays out, so that DDP's search for unused ones sees the truth.
    reached = [(g, p) for g, p in zip(found, params, strict=True) if g is not None]
    grads = cut_loose([g for g, _ in reached])
    return _Clean(logits.detach(), loss.detach(), directions, grads, [p for _, p in reached])


def _check_twice_differentiable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise ValueError(
                f"{name or type(model).__name__!r} is compiled, and torch.compile has no second derivative, which "
                "training through a differentiable perturbation needs: leave out the compilation, or differentiable"
            )


class _Draws:
    """The state of the random generators of the CPU and of `device`, to draw the same numbers again."""

    def __init__(self, device: torch.device) -> None:
        self.device = None if device.type == "cpu" else device
        self.states = self._now()

    def _now(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device is not None:
            states.append(torch.get_device_module(self.device).get_rng_state(self.device))
        return states

    @contextmanager
    def repeated(self) -> Iterator[None]:
        # The second pass may draw for its noise rule as well; what follows goes on after the clean pass's draws.
        after = self._now()
        self._restore(self.states)
        try:
            yield
        finally:
            self._restore(after)

    def _restore(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device is not None:
            torch.get_device_module(self.device).set_rng_state(states[1], self.device)
