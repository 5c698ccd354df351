"""The mixed objective of Goodfellow et al. (2015)."""

from __future__ import annotations

from torch import Tensor, nn

from adv_lightning.attacks.base import Attack, SingleStepAttack
from adv_lightning.attacks.model_mode import InEvalMode
from adv_lightning.methods.base import Learner, Method
from adv_lightning.methods.input_checks import check_attack, check_range
from adv_lightning.methods.perturbation_sites import Crafted, InputSite, PerturbationSite, Sites
from adv_lightning.methods.two_pass_objective import (
    Crafting,
    Masks,
    Objective,
    Passes,
    Statistics,
    adversarial_objective,
)


class Mixed(Method):
    """Trains on alpha * J(x) + (1 - alpha) * J(x_adv), x_adv a constant (Goodfellow et al. 2015, section 6).

    A single-step attack shares the clean pass: two forward and two backward passes a step. Any other attack crafts in
    passes of its own first. With alpha = 0 and PGD it is the adversarial training of Madry et al. (2018). With
    alpha = 1, or without an attack, it is plain training, in one forward and one backward pass.

    Args:
        attack: Crafts x_adv. Null: plain training.
        alpha: Weight of the clean loss, in [0, 1]; the paper used 0.5.
        crafting: Mode in which the attack's gradient is taken: "train" shares the clean pass, its dropout mask
            included; "eval" takes one more forward and backward pass, with dropout off.
        masks: "fresh" lets the adversarial pass draw its own dropout masks; "shared" repeats the clean pass's.
        statistics: Passes that update BatchNorm's running statistics, and any other buffer that moves in training:
            "both", or the "clean" one alone.

    Raises:
        ValueError: alpha lies outside [0, 1], or a word is not among those allowed.

    Example:
        >>> from adv_lightning import FGSM
        >>> Mixed(FGSM(eps=0.25), alpha=0.5).alpha
        0.5
    """

    def __init__(
        self,
        attack: Attack | None,
        alpha: float = 0.5,
        crafting: Crafting = "train",
        masks: Masks = "fresh",
        statistics: Statistics = "both",
    ) -> None:
        super().__init__()
        check_range("alpha", alpha, 0, 1)
        check_attack(attack)
        self.attack = attack
        self.alpha = alpha
        self.passes = Passes(crafting, masks, statistics)
        self.sites: Sites = Sites()

    crafting = property(lambda self: self.passes.crafting)
    masks = property(lambda self: self.passes.masks)
    statistics = property(lambda self: self.passes.statistics)

    def craft(self, learner: Learner, x: Tensor, y: Tensor) -> Tensor:
        """Craft in the mode that `crafting` says."""
        if self.passes.crafting == "train" or self.attack is None:
            return super().craft(learner, x, y)
        assert isinstance(learner, nn.Module)
        with InEvalMode(learner) as model:
            return self.attack(model, x, y, loss_fn=learner.loss)

    def loss(self, learner: Learner, x: Tensor, x_adv: Tensor, y: Tensor) -> Objective:
        """Return the objective with inputs that are crafted already."""
        return self._mixed(learner, x, y, [InputSite(Crafted(x_adv)), *self.sites.layers])

    def objective(self, learner: Learner, x: Tensor, y: Tensor) -> Objective:
        if type(self).loss is not Mixed.loss:
            return super().objective(learner, x, y)  # a subclass gives up sharing the clean pass
        return self._mixed(learner, x, y, self.sites_of(learner, x, y))

    def sites_of(self, learner: Learner, x: Tensor, y: Tensor) -> list[PerturbationSite]:
        """Return all places that this step perturbs: the input, by its rule or the attack, then those inside."""
        self.sites.used = True
        if not self.sites.perturb_input:
            return list(self.sites.layers)
        rule = self.sites.input_rule
        if rule is None and self.attack is not None and self.alpha < 1:
            if isinstance(self.attack, SingleStepAttack) and type(self).craft is Mixed.craft:
                rule = self.attack
            else:
                rule = Crafted(self.craft(learner, x, y))
        return [InputSite(rule), *self.sites.layers]

    def _mixed(self, learner: Learner, x: Tensor, y: Tensor, sites: list[PerturbationSite]) -> Objective:
        assert isinstance(learner, nn.Module)
        return adversarial_objective(
            learner, x, y, loss_fn=learner.loss, sites=sites, alpha=self.alpha, passes=self.passes
        )


def chosen(method: Method | None, short: Mixed) -> Method:
    """Return the method, or where there is none the short form that the module's own arguments make.

    Raises:
        ValueError: both are given: the short form has other than its default arguments.
    """
    if method is None:
        return short
    default = Mixed(None).config()["init_args"]
    given = [name for name, value in short.config()["init_args"].items() if value != default[name]]
    if given:
        raise ValueError(
            f"both method={type(method).__name__} and {', '.join(given)} are given, here or by a checkpoint or "
            f"configuration file: give {', '.join(given)} to the method itself, or set one of the two to None (null)"
        )
    return method
