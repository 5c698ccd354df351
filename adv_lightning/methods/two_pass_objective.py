"""The paper's mixed objective, in two forward and two backward passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from adv_lightning.attacks.gradients import LossFn, gradients, per_example
from adv_lightning.attacks.model_mode import eval_mode, frozen_statistics, is_compiled
from adv_lightning.methods.gradient_replay import ReplayGradient, cut_loose
from adv_lightning.methods.perturbation_sites import PerturbationSite

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
        statistics: Which passes update BatchNorm's running statistics: "both", or only the "clean" one.

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
        model: x -> logits. Its trainable parameters are looked up at each call.
        x: Inputs, floating point, [B, ...]; not changed in place.
        y: Targets, passed to `loss_fn`.
        loss_fn: (logits, y) -> mean loss over the batch.
        sites: Where the second pass is perturbed. Sites without a rule do nothing.
        alpha: Weight of the clean loss, in [0, 1].
        passes: How the network runs in each pass; by default `Passes()`.
        scale: A GradScaler's factor, a scalar tensor. The inner gradient is multiplied by it, so that it does not
            underflow in half precision, and divided again. None: the model's `gradient_scale`, if it has one.
        replay: False keeps the clean pass's graph until `total` is differentiated, which costs half a backward pass
            and memory. Sharded parameters need this. It is also done where parameters have hooks, and where a rule is
            differentiable: then x_adv is not a constant, and training differentiates through it. None: True, unless
            the model says that it is `sharded`.

    Raises:
        ValueError: the loss does not depend differentiably on the value of a site, or a rule is differentiable and
            the model is compiled.
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

    # Without a clean pass in train mode, only the adversarial pass can update the statistics.
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
    params: Sequence[Tensor] = (),
    *,
    weight: float = 1,
    scale: Tensor | None,
    replay: bool = True,
) -> _Clean:
    """Run the clean pass and differentiate its loss with respect to every site, and to `params` if it is replayed."""
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
    # The gradients carry the weight from the start, which saves a multiplication in the replay.
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
    # A parameter that the loss does not reach stays out, so that DDP finds its unused parameters.
    reached = [(g, p) for g, p in zip(found, params, strict=True) if g is not None]
    grads = cut_loose([g for g, _ in reached])
    return _Clean(logits.detach(), loss.detach(), directions, grads, [p for _, p in reached])


def _check_twice_differentiable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if is_compiled(module):
            raise ValueError(
                f"{name or type(model).__name__!r} is compiled, and torch.compile has no second derivative, which "
                "training through a differentiable perturbation needs: leave out the compilation, or differentiable"
            )


class _Draws:
    """The state of the random generators of the CPU and of `device`, for drawing the same numbers again."""

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
        # Afterwards, draws continue from where the clean pass ended.
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
