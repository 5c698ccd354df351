"""`masks: shared`: the second pass has the masks of the first, whatever the rules draw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import (
    AdversarialModule,
    GaussianNoise,
    InputSite,
    LayerSite,
    Passes,
    PerturbationSite,
    SignNoise,
    SingleStepAttack,
    UniformNoise,
    adversarial_objective,
)
from adv_lightning.attacks import Rule
from tests.support.helpers import batches


class RandomStart(SingleStepAttack):
    """A user's rule that draws by itself, then follows the gradient (as FGSM with a random start)."""

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return value + 0.1 * torch.rand_like(value) + 0.1 * grad.sign()


class Masks(nn.Module):
    """Dropout that remembers its masks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.empty_like(x).bernoulli_(0.5)
        self.seen.append(mask)
        return x * mask


class Recorded(SingleStepAttack):
    """Another rule, whose changes it remembers."""

    def __init__(self, rule: SingleStepAttack) -> None:
        super().__init__()
        self.rule, self.needs_grad = rule, rule.needs_grad
        self.changes: list[Tensor] = []

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        x_adv = self.rule.step(value, grad)
        self.changes.append((x_adv - value).detach())
        return x_adv


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), Masks(), nn.Tanh(), nn.Linear(6, 6), Masks(), nn.Linear(6, 3)).double()


RULES = [SignNoise(0.1), UniformNoise(0.1), GaussianNoise(0.1), RandomStart()]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


@rules
@pytest.mark.parametrize("place", ["input", "layer", "both"])
def test_the_masks_are_those_of_the_first_pass(rule: Rule, place: str) -> None:
    model = net()
    sites: list[PerturbationSite] = [InputSite(rule)] if place != "layer" else []
    sites += [LayerSite(model[3], "3", rule)] if place != "input" else []
    x, y = batches(1, size=64).batches[0]
    for _ in range(2):
        adversarial_objective(
            model, x, y, loss_fn=F.cross_entropy, sites=sites, alpha=0.5, passes=Passes(masks="shared")
        )
    for layer in (model[1], model[4]):
        first, second, third, fourth = layer.seen
        assert torch.equal(first, second)
        assert torch.equal(third, fourth)
        assert not torch.equal(first, third)


def test_noise_is_not_the_masks_and_is_new_in_each_step() -> None:
    model, rule = net(), Recorded(SignNoise(1))
    x, y = batches(1, size=2000).batches[0]
    for _ in range(2):
        adversarial_objective(
            model, x, y, loss_fn=F.cross_entropy, sites=[InputSite(rule)], alpha=0.5, passes=Passes(masks="shared")
        )
    first, second = rule.changes
    # Of 12,000 fair signs half agree; five standard errors are .023.
    assert abs((first == second).double().mean() - 0.5) < 0.023
    mask = 2 * model[1].seen[0] - 1
    assert abs((first * mask).mean()) < 0.046


def test_draws_go_on_where_the_rules_ended() -> None:
    x, y = batches(1).batches[0]
    rule = Recorded(SignNoise(1))
    torch.manual_seed(1)
    sites = [InputSite(rule)]
    adversarial_objective(net(), x, y, loss_fn=F.cross_entropy, sites=sites, alpha=0.5, passes=Passes(masks="shared"))
    after = torch.rand(3)
    torch.manual_seed(1)
    net()(x)
    assert torch.equal(SignNoise(1).step(x, None) - x, rule.changes[0])
    assert torch.equal(torch.rand(3), after)


def test_reaches_the_module() -> None:
    module = AdversarialModule(net(), attack=SignNoise(0.1), masks="shared")
    x, y = batches(1).batches[0]
    module.objective(x, y)
    first, second = module.backbone[1].seen
    assert torch.equal(first, second)
