from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import (
    FGSM,
    AdversarialModule,
    InputSite,
    Objective,
    Passes,
    PerturbationSite,
    SingleStepAttack,
    adversarial_objective,
)
from adv_lightning.attacks import Rule
from tests.support.helpers import Batch, Counter, Snapshot, batches, fit, mlp

EPS = 0.1
Grads = dict[str, Tensor | None]
alphas = pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])


class Gradient(SingleStepAttack):
    """A step along the gradient itself, so that its size counts too."""

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return value + EPS * grad


class Shift(SingleStepAttack):
    """A rule that needs no gradient."""

    needs_grad = False

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        return value + EPS


def data(**kwargs: object) -> Batch:
    return batches(1, **kwargs).batches[0]


def grads_of(net: nn.Module) -> Grads:
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def found(
    net: nn.Module, batch: Batch, alpha: float, rule: Rule | None = None, **kwargs: object
) -> tuple[Objective, Grads]:
    """The objective under test and the gradients that its backward pass leaves."""
    net.zero_grad()
    site = InputSite(FGSM(EPS) if rule is None else rule)
    objective = adversarial_objective(net, *batch, loss_fn=F.cross_entropy, sites=[site], alpha=alpha, **kwargs)  # type: ignore[arg-type]
    objective.total.backward()
    return objective, grads_of(net)


def expected(
    net: nn.Module,
    batch: Batch,
    alpha: float,
    rule: Rule | None = None,
    second: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Grads]:
    """Two plain passes with one graph, alpha * J(x) + (1 - alpha) * J(x_adv); `second` runs before the second."""
    net.zero_grad()
    x, y = batch
    leaf = x.clone().requires_grad_()
    clean = F.cross_entropy(net(leaf), y)
    (grad,) = torch.autograd.grad(clean, leaf, retain_graph=True)
    x_adv = (FGSM(EPS) if rule is None else rule).step(x, len(x) * grad).detach()
    second()
    total = alpha * clean + (1 - alpha) * F.cross_entropy(net(x_adv), y)
    total.backward()
    return total.detach(), grads_of(net)


def assert_close(first: Grads, second: Grads, tolerance: float = 1e-12) -> None:
    assert {name for name, g in first.items() if g is None} == {name for name, g in second.items() if g is None}
    torch.testing.assert_close(
        {name: g for name, g in first.items() if g is not None},
        {name: g for name, g in second.items() if g is not None},
        rtol=0,
        atol=tolerance,
    )


class Tied(nn.Module):
    """One matrix used twice, beside a layer that the output does not reach."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(6, 2)
        self.last = nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).tanh()).tanh())


def frozen() -> nn.Module:
    net = mlp()
    net[0].weight.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    return net


@alphas
@pytest.mark.parametrize("rule", [FGSM(EPS), Gradient()], ids=["FGSM", "gradient"])
@pytest.mark.parametrize("build", [mlp, frozen, Tied])
@pytest.mark.parametrize("replay", [True, False])
def test_gradients_equal_two_plain_passes(
    alpha: float, rule: SingleStepAttack, build: Callable[[], nn.Module], replay: bool
) -> None:
    net, batch = build(), data()
    total, reference = expected(net, batch, alpha, rule)
    objective, grads = found(net, batch, alpha, rule, replay=replay)
    torch.testing.assert_close(objective.total.detach(), total, rtol=0, atol=1e-14)
    assert_close(grads, reference)
    assert any(g is not None and g.abs().max() > 0.01 for g in grads.values())


def test_gradients_accumulate() -> None:
    net, batch = mlp(), data()
    _, reference = expected(net, batch, 0.5)
    _, first = found(net, batch, 0.5)
    objective = adversarial_objective(net, *batch, loss_fn=F.cross_entropy, sites=[InputSite(FGSM(EPS))], alpha=0.5)
    assert_close(grads_of(net), first, 0)  # the objective alone touches no gradient
    objective.total.backward()
    assert_close(grads_of(net), {name: 2 * g for name, g in reference.items() if g is not None})


def test_parts() -> None:
    net, (x, y) = mlp(), data()
    objective, _ = found(net, (x, y), 0.3)
    logits, adv_logits = net(x), net(FGSM(EPS)(net, x, y, loss_fn=F.cross_entropy))
    clean, adversarial = F.cross_entropy(logits, y), F.cross_entropy(adv_logits, y)
    for part, value in [
        (objective.clean, clean),
        (objective.adversarial, adversarial),
        (objective.logits, logits),
        (objective.adversarial_logits, adv_logits),
    ]:
        assert part is not None
        assert not part.requires_grad
        torch.testing.assert_close(part, value.detach(), rtol=0, atol=1e-14)
    assert adversarial > clean


@alphas
@pytest.mark.parametrize("replay", [True, False])
def test_leaves_inputs_unchanged(alpha: float, replay: bool) -> None:
    net, (x, y) = mlp(), data()
    before = x.clone()
    found(net, (x, y), alpha, replay=replay)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("tied", [False, True])
def test_parameter_hook_fires_once(tied: bool) -> None:
    net, batch = Tied() if tied else mlp(), data()
    _, reference = expected(net, batch, 0.5)
    calls: list[str] = []
    for name, p in net.named_parameters():
        p.register_hook(lambda grad, name=name: calls.append(name))
        p.register_post_accumulate_grad_hook(lambda p, name=name: calls.append(f"after {name}"))
    _, grads = found(net, batch, 0.5)
    assert_close(grads, reference)
    reached = [name for name, g in reference.items() if g is not None]
    assert sorted(calls) == sorted([*reached, *(f"after {name}" for name in reached)])


def test_parameter_hook_changes_gradient_once() -> None:
    net, batch = mlp(), data()
    _, reference = expected(net, batch, 0.5)
    net[0].weight.register_hook(lambda grad: 3 * grad)
    _, grads = found(net, batch, 0.5)
    reference["0.weight"] = 3 * reference["0.weight"]
    assert_close(grads, reference)


@pytest.mark.parametrize(
    ("alpha", "rule", "kwargs", "passes"),
    [
        (0.5, FGSM(EPS), {}, (2, 2)),
        (0.3, Gradient(), {"scale": torch.tensor(4.0)}, (2, 2)),
        (0.5, FGSM(EPS), {"passes": Passes(masks="shared", statistics="clean")}, (2, 2)),
        (0.5, Shift(), {}, (2, 2)),
        (1.0, FGSM(EPS), {}, (1, 1)),
        (0.0, FGSM(EPS), {}, (2, 2)),
        (0.0, Shift(), {}, (1, 1)),
        (0.5, FGSM(EPS), {"replay": False}, (2, 3)),
        (0.5, FGSM(EPS), {"passes": Passes(crafting="eval")}, (3, 3)),
        (0.0, FGSM(EPS), {"passes": Passes(crafting="eval")}, (2, 2)),
    ],
)
def test_counts_of_passes(alpha: float, rule: Rule, kwargs: dict[str, object], passes: tuple[int, int]) -> None:
    net = mlp()
    counter = Counter(net[0])
    found(net, data(), alpha, rule, **kwargs)
    assert (counter.forward, counter.backward) == passes


def test_no_rule_is_plain() -> None:
    net, (x, y) = mlp(), data()
    counter = Counter(net[0])
    objective = adversarial_objective(net, x, y, loss_fn=F.cross_entropy, sites=[InputSite()], alpha=0.5)
    objective.total.backward()
    assert (counter.forward, counter.backward) == (1, 1)
    assert torch.equal(objective.total, F.cross_entropy(net(x), y))
    assert (objective.adversarial, objective.adversarial_logits) == (None, None)


def test_alpha_0_has_no_clean_gradient() -> None:
    net, batch = mlp(), data()
    objective, grads = found(net, batch, 0.0)
    assert objective.clean is None
    x_adv = FGSM(EPS)(net, *batch, loss_fn=F.cross_entropy)
    net.zero_grad()
    F.cross_entropy(net(x_adv), batch[1]).backward()
    assert_close(grads, grads_of(net), 0)


def test_refuses_input_without_gradient() -> None:
    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.detach().float())

    with pytest.raises(ValueError, match=r"gradient|differentiabl"):
        found(Rounds(), data(), 0.5)
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        found(nn.Sequential(nn.Flatten()), (torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2).long()), 0.5)


# Dropout


def dropout_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3)
    ).double()  # fmt: skip


def test_fresh_masks() -> None:
    net, batch = dropout_net(), data()
    torch.manual_seed(11)
    total, reference = expected(net, batch, 0.3)
    torch.manual_seed(11)
    objective, grads = found(net, batch, 0.3)
    assert_close(grads, reference)
    assert objective.total.item() == pytest.approx(total.item(), abs=1e-14)


def test_shared_masks() -> None:
    net, (x, y) = dropout_net(), data()
    torch.manual_seed(11)
    start = torch.get_rng_state()
    net(x)
    after_one_pass = torch.get_rng_state()
    torch.set_rng_state(start)
    _, reference = expected(net, (x, y), 0.3, second=lambda: torch.set_rng_state(start))
    torch.set_rng_state(start)
    _, fresh = found(net, (x, y), 0.3)
    torch.set_rng_state(start)
    _, grads = found(net, (x, y), 0.3, passes=Passes(masks="shared"))
    assert torch.equal(torch.get_rng_state(), after_one_pass)
    assert_close(grads, reference)
    assert (grads["1.weight"] - fresh["1.weight"]).abs().max() > 1e-3


def test_eval_crafting_has_no_dropout() -> None:
    net, (x, y) = dropout_net(), data()
    net[3].eval()
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    torch.manual_seed(11)
    before = Snapshot(net)
    _, grads = found(net, (x, y), 0.3, passes=Passes(crafting="eval"))
    assert {name: m.training for name, m in net.named_modules()} == before.modes
    twin = copy.deepcopy(net).eval()
    x_adv = FGSM(EPS)(twin, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(seen[2], x_adv)
    torch.manual_seed(11)
    net.zero_grad()
    (0.3 * F.cross_entropy(net(x), y) + 0.7 * F.cross_entropy(net(x_adv), y)).backward()
    assert_close(grads, grads_of(net))


# BatchNorm


def norm_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()


@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize("statistics", ["both", "clean"])
def test_running_statistics(crafting: str, statistics: str) -> None:
    net, (x, y) = norm_net(), data()
    twin = copy.deepcopy(net)
    twin(x)
    clean = {name: value.clone() for name, value in twin[1].named_buffers()}
    found(net, (x, y), 0.5, passes=Passes(crafting=crafting, statistics=statistics))  # type: ignore[arg-type]
    updates = {"both": 2, "clean": 1}[statistics]
    assert net[1].num_batches_tracked == updates
    assert torch.equal(net[1].running_mean, clean["running_mean"]) == (statistics == "clean")
    assert torch.equal(net[1].running_var, clean["running_var"]) == (statistics == "clean")
    assert net[1].track_running_stats
    assert net[1].training


@pytest.mark.parametrize("statistics", ["both", "clean"])
@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize("rule", [FGSM(EPS), Shift()], ids=["FGSM", "shift"])
def test_running_statistics_with_alpha_0(statistics: str, crafting: str, rule: Rule) -> None:
    net = norm_net()
    found(net, data(), 0.0, rule, passes=Passes(crafting=crafting, statistics=statistics))  # type: ignore[arg-type]
    assert net[1].num_batches_tracked > 0


@pytest.mark.parametrize("statistics", ["both", "clean"])
def test_batch_norm_gradients(statistics: str) -> None:
    net, batch = norm_net(), data()
    _, reference = expected(copy.deepcopy(net), batch, 0.5)
    _, grads = found(net, batch, 0.5, passes=Passes(statistics=statistics))  # type: ignore[arg-type]
    assert_close(grads, reference)


@pytest.mark.parametrize("name", ["crafting", "masks", "statistics"])
def test_refuses_unknown_passes(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='sometimes'"):
        Passes(**{name: "sometimes"})  # type: ignore[arg-type]


# eps = 0


def test_eps_0_is_plain_training() -> None:
    loader = batches(6, dtype=torch.float32)
    weights = []
    for attack in (None, FGSM(0.0)):
        module = AdversarialModule(mlp().float(), attack)
        fit(module, loader, max_epochs=2)
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], torch.cat([p.detach().flatten() for p in mlp().float().parameters()]))


# The GradScaler's factor


@pytest.mark.parametrize("replay", [True, False])
def test_scale_is_divided_out(replay: bool) -> None:
    net, batch = mlp(), data()
    scale = torch.tensor(65536.0)
    for rule in (FGSM(EPS), Gradient()):
        _, plain = found(net, batch, 0.5, rule)
        net.zero_grad()
        objective = adversarial_objective(
            net, *batch, loss_fn=F.cross_entropy, sites=[InputSite(rule)], alpha=0.5, scale=scale, replay=replay
        )  # fmt: skip
        (objective.total * scale).backward()
        assert_close(grads_of(net), {name: 65536 * g for name, g in plain.items() if g is not None}, 1e-8)


class Half(torch.autograd.Function):
    """Identity whose gradient passes through half precision, as that of a layer under fp16 autocast."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad.half().to(grad.dtype)


class HalfNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return Half.apply(self.linear(x))


def test_scale_prevents_underflow() -> None:
    net = HalfNet()
    x = torch.randn(8, 6)
    with torch.no_grad():
        y = net(x).argmax(1)
        net.linear.weight.mul_(30)
        net.linear.bias.mul_(30)
    own = FGSM(EPS)(net.linear, x, y, loss_fn=F.cross_entropy)
    lost = FGSM(EPS)(net, x, y, loss_fn=F.cross_entropy)
    assert (own != x).all(dim=1).sum() > (lost != x).any(dim=1).sum()
    found(net, (x, y), 0.5, scale=torch.tensor(2.0**24))
    moved = (net.seen[-1] != x).any(dim=1)
    assert moved.sum() > (lost != x).any(dim=1).sum()
    assert torch.equal(net.seen[-1][moved], own[moved])


def test_overflow_perturbs_nothing() -> None:
    net = HalfNet()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 6, generator=generator), torch.arange(16) % 3
    # The inner gradient carries alpha * scale: in half precision one above 65504 / (.5 * 3e6) = .044 is infinite.
    scale = torch.tensor(3e6)
    logits_grad = (net.linear(x).softmax(1) - F.one_hot(y, 3)).detach() / 16
    overflown = (logits_grad * 0.5 * scale).abs().amax(dim=1) > 65520
    assert 0 < overflown.sum() < 16
    _, grads = found(net, (x, y), 0.5, scale=scale)
    x_adv = net.seen[-1]
    assert torch.equal(x_adv[overflown], x[overflown])
    assert (x_adv != x)[~overflown].all()
    assert not any(g.isfinite().all() for g in grads.values())


# Sites of one's own


def test_incomplete_site_says_what_to_define() -> None:
    site = PerturbationSite(FGSM(0.1))
    with pytest.raises(NotImplementedError, match=r"recorded\(x\)"), site.recorded(torch.zeros(1)):
        pass
    with (
        pytest.raises(NotImplementedError, match=r"perturbed\(x, direction\)"),
        site.perturbed(torch.zeros(1), None),
    ):
        pass
