"""Base classes of attacks, and the rule that a single-step attack applies."""

from __future__ import annotations

import math
from typing import Any, Protocol

from torch import Tensor, nn

from adv_lightning.attacks.constructor_arguments import KeepsArguments, plain_setting
from adv_lightning.attacks.description import describe, keyword_arguments
from adv_lightning.attacks.gradients import LossFn, Model, gradients_enabled, input_gradient
from adv_lightning.attacks.threat_model import Ball, ThreatModel


class Rule(Protocol):
    """A pure function (value, gradient) -> perturbed value: all that training needs of an attack."""

    needs_grad: bool

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        """Perturb `value`; `grad` is None if `needs_grad` is False."""
        ...


class Attack(nn.Module, KeepsArguments):
    """Turns (model, x, y) into adversarial inputs. Has no parameters and is bound to no model.

    Leaves the model unchanged: no parameter's `.grad`, no BatchNorm buffer and no module's mode is touched.
    Works under `torch.no_grad` and `torch.inference_mode`. A subclass keeps every constructor argument as an
    attribute of the same name, so that `config` can describe it. Numbers of numpy become Python's there.

    Checks and reports ask an attack for `ball`, `reach`, `steps`, `uses_label` and `uses_gradient`. The defaults are
    those of an attack that follows the gradient away from the label; its attributes `eps`, `norm`, `bounds`, `steps`,
    `step_size` and `random_start` are read as in FGSM and PGD. Override what differs: a class attribute such as
    `uses_label = False`, or the method `ball`.
    """

    steps: int | None = None
    """Number of steps it takes. None: unknown."""

    @property
    def uses_label(self) -> bool:
        """Whether it looks at the labels `y`."""
        return True

    @property
    def uses_gradient(self) -> bool | None:
        """Whether it follows the gradient of the model it is called with (a white-box attack). None: unknown."""
        return True

    def ball(self) -> Ball | None:
        """Return the Lp ball around the clean input that contains the result; None if there is none.

        By default the ball of radius `eps`, clipped to `bounds`, in the norm that the attribute `norm` names, such as
        "L2", or in the max norm if there is no such attribute. None if `eps` is not a number.
        """
        return Ball.read(getattr(self, "eps", None), getattr(self, "norm", math.inf), getattr(self, "bounds", None))

    def reach(self) -> float | None:
        """Return how far its steps can lead from the clean input, in the norm of the ball. None: unknown.

        By default `steps * step_size`, less `eps` if a `random_start` may lie on the far side of the ball. One step
        without a `step_size` reaches `eps`.
        """
        ball, step_size = self.ball(), getattr(self, "step_size", None)
        if ball is None or not isinstance(self.steps, int):
            return None
        if isinstance(step_size, int | float):
            return float(self.steps * step_size) - (ball.eps if getattr(self, "random_start", False) else 0)
        return ball.eps if self.steps == 1 else None

    def threat_model(self) -> ThreatModel:
        """Return all of the above together; records contain it."""
        steps = self.steps if isinstance(self.steps, int) else None
        return ThreatModel(self.ball(), self.uses_label, self.uses_gradient, steps, self.reach())

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        """Craft adversarial inputs.

        Args:
            model: x -> logits.
            x: Inputs, floating point, [B, ...].
            y: Targets, [B, ...], as `loss_fn` takes them.
            loss_fn: (logits, y) -> mean loss over the batch, the J that the attack increases.

        Returns:
            Inputs of the shape of `x`, detached.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(model, x, y, *, loss_fn)")

    def config(self) -> dict[str, Any]:
        """Describe the attack as the `{class_path, init_args}` from which YAML builds it."""
        return describe(self)

    def extra_repr(self) -> str:
        return keyword_arguments(self)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, plain_setting(self, name, value))

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        """Craft as `forward` does, with gradients enabled, and leave the model's buffers as they were."""
        with gradients_enabled(model):
            # A tensor made under inference mode cannot take part in autograd; a clone made here can.
            x, y = (e.clone() if isinstance(e, Tensor) and e.is_inference() else e for e in (x, y))
            found: Tensor = super().__call__(model, x, y, loss_fn=loss_fn)
            return found


class SingleStepAttack(Attack):
    """An attack of one gradient and one rule. Training uses the rule alone: override `step`, not `forward`."""

    needs_grad = True
    differentiable = False
    """Whether training differentiates through the perturbation, by double backward."""
    steps = 1

    @property
    def uses_label(self) -> bool:
        """Whether the rule gets the gradient: labels reach it in no other way."""
        return self.needs_grad

    @property
    def uses_gradient(self) -> bool | None:
        """Whether the rule gets the gradient."""
        return self.needs_grad

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        """Perturb `value` along the gradient of each example's own loss, [B, ...] as `value`."""
        raise NotImplementedError(f"{type(self).__name__} must define step(value, grad)")

    def forward(self, model: Model, x: Tensor, y: Tensor, *, loss_fn: LossFn) -> Tensor:
        grad = input_gradient(model, x, y, loss_fn=loss_fn).grad if self.needs_grad else None
        return self.step(x.detach(), grad)
