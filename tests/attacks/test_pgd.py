from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, FoolboxAttack, LogisticLoss, Square, TorchAttack
from adv_lightning.attacks import Attack
from tests.support.helpers import Counter, mlp


def data(n: int = 12, features: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, features, generator=generator, dtype=torch.float64), torch.arange(n) % 3


@pytest.mark.filterwarnings("ignore:PGD.*out of reach:UserWarning")
@pytest.mark.parametrize("random_start", [False, True])
def test_reaches_the_corner_on_a_linear_model(random_start: bool) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 2).double().eval()
    x, y = data()
    y = y % 2
    corner = FGSM(0.25)(net, x, y, loss_fn=F.cross_entropy)
    # From any start in the ball, the far corner is at most 2 eps away in each pixel.
    found = PGD(0.25, step_size=0.0625, steps=8, random_start=random_start)(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(found, corner, rtol=0, atol=1e-15)
    short = PGD(0.25, step_size=0.0625, steps=3, random_start=random_start)(net, x, y, loss_fn=F.cross_entropy)
    assert (short - corner).abs().max() > 0.05


def test_one_step_without_a_random_start_is_fgsm() -> None:
    net, (x, y) = mlp(), data()
    once = PGD(0.1, step_size=0.1, steps=1, random_start=False)(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(once, FGSM(0.1)(net, x, y, loss_fn=F.cross_entropy), rtol=0, atol=1e-15)


def test_equals_the_papers_loop() -> None:
    net, (x, y) = mlp().eval(), data()
    attack = PGD(0.2, step_size=0.05, steps=7, bounds=(0, 1))
    x_adv = PGD(0.2, step_size=0, steps=1, bounds=(0, 1))(net, x, y, loss_fn=F.cross_entropy)  # its start
    assert not torch.equal(x_adv, x)
    for _ in range(7):
        leaf = x_adv.clone().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)
        x_adv = torch.min(torch.max(x_adv + 0.05 * grad.sign(), x - 0.2), x + 0.2).clamp(0, 1)
    torch.testing.assert_close(attack(net, x, y, loss_fn=F.cross_entropy), x_adv, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iterates_stay_in_ball_and_bounds(dtype: torch.dtype) -> None:
    net, (x, y) = mlp().to(dtype).eval(), data(64)
    x = x.to(dtype)
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    seen.append(PGD(0.2, step_size=0.15, steps=6, bounds=(0, 1))(net, x, y, loss_fn=F.cross_entropy))
    assert len(seen) == 7
    for iterate in seen:
        assert (iterate - x).abs().max() <= 0.2 + 4 * torch.finfo(dtype).eps
        assert iterate.min() >= 0
        assert iterate.max() <= 1
    spread = (seen[0] - x).abs()
    assert spread.max() > 0.15
    assert spread.min() < 0.05


def test_beats_fgsm_on_a_curved_loss() -> None:
    net, (x, y) = mlp().eval(), data(60)
    for p in net.parameters():
        p.data.mul_(6)
    fgsm, pgd = (a(net, x, y, loss_fn=F.cross_entropy) for a in (FGSM(0.5), PGD(0.5, steps=40, random_start=False)))
    assert F.cross_entropy(net(pgd), y) > F.cross_entropy(net(fgsm), y)


@pytest.mark.parametrize("steps", [1, 4])
def test_eval_mode_is_independent_of_batches_and_order(steps: int) -> None:
    net, (x, y) = mlp().eval(), data()
    step_size = 0.0 if steps == 1 else 0.1  # 0: the start itself
    attack = PGD(0.3, step_size=step_size, steps=steps)
    whole = attack(net, x, y, loss_fn=F.cross_entropy)
    parts = [attack(net, x[i : i + 5], y[i : i + 5], loss_fn=F.cross_entropy) for i in range(0, 12, 5)]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    shuffled = attack(net, x[order], y[order], loss_fn=F.cross_entropy)
    if steps == 1:
        assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(shuffled, whole[order])
        assert (whole - x).unique(dim=0).shape[0] == 12
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-14)


def test_only_the_seed_decides_the_start() -> None:
    net, (x, y) = mlp().eval(), data()

    def start(seed: int) -> Tensor:
        return PGD(0.3, step_size=0, steps=1, seed=seed)(net, x, y, loss_fn=F.cross_entropy)

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = start(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(start(0), first)
    assert not torch.equal(start(1), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_random_start_is_stable_between_versions(dtype: torch.dtype) -> None:
    net, (x, y) = mlp().to(dtype), data()
    x, attack = x.to(dtype), PGD(0.3, step_size=0, steps=1, seed=7, bounds=(0, 1))
    generator, noise = torch.Generator(), []
    for row in x.float():
        generator.manual_seed(zlib.crc32(row.numpy().tobytes(), 7))
        noise.append(torch.rand(row.shape, generator=generator))
    expected = (x + 0.3 * (2 * torch.stack(noise).to(dtype) - 1)).clamp(0, 1)
    assert torch.equal(attack(net.eval(), x, y, loss_fn=F.cross_entropy), expected.clamp(x - 0.3, x + 0.3))
    torch.manual_seed(3)
    expected = (x + 0.3 * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    torch.manual_seed(3)
    assert torch.equal(attack(net.train(), x, y, loss_fn=F.cross_entropy), expected.clamp(x - 0.3, x + 0.3))


def test_train_mode_draws_a_new_start() -> None:
    net, (x, y) = mlp().train(), data()
    attack = PGD(0.3, step_size=0, steps=1)
    torch.manual_seed(3)
    first, second = (attack(net, x, y, loss_fn=F.cross_entropy) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(attack(net, x, y, loss_fn=F.cross_entropy), first)


def test_takes_one_forward_and_backward_pass_per_step() -> None:
    net, (x, y) = mlp(), data()
    counter = Counter(net[0])
    PGD(0.1, steps=5)(net, x, y, loss_fn=F.cross_entropy)
    assert (counter.forward, counter.backward) == (5, 5)


def steep() -> nn.Sequential:
    """A curved network, on which the start decides how far a short run gets."""
    net = mlp(seed=3).eval()
    for p in net.parameters():
        p.data.mul_(4)
    return net


def mistakes(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return net(x).argmax(dim=1) != y


def test_restarts_keep_the_first_success_or_the_last_run() -> None:
    net, (x, _) = steep(), data(200)
    y = net(x).argmax(dim=1)
    kwargs = {"eps": 0.15, "step_size": 0.075, "steps": 2}
    runs = [PGD(**kwargs, seed=4 + i)(net, x, y, loss_fn=F.cross_entropy) for i in range(4)]
    errs = [mistakes(net, run, y) for run in runs]
    expected = runs[-1].clone()
    for run, wrong in reversed([*zip(runs, errs, strict=True)]):
        expected[wrong] = run[wrong]
    found = PGD(**kwargs, seed=4, restarts=4)(net, x, y, loss_fn=F.cross_entropy)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    shares = torch.stack(errs).double().mean(dim=1)
    together = mistakes(net, found, y).double().mean()
    assert together > shares.max()
    assert 0 < together < 1


def test_more_restarts_never_fool_fewer() -> None:
    net, (x, _) = steep(), data(200)
    y = net(x).argmax(dim=1)
    found = [PGD(0.15, 0.075, 2, restarts=n)(net, x, y, loss_fn=F.cross_entropy) for n in (1, 2, 3, 5)]
    wrong = [mistakes(net, each, y) for each in found]
    for fewer, more in itertools.pairwise(wrong):
        assert (more | ~fewer).all()
    assert wrong[-1].sum() > wrong[0].sum()


@pytest.mark.parametrize(("eps", "passes"), [(1e-9, (3 * 5 + 2, 3 * 5)), (5, (5 + 1, 5))])
def test_restarts_stop_when_all_are_fooled(eps: float, passes: tuple[int, int]) -> None:
    net, (x, _) = steep(), data()
    y = net(x).argmax(dim=1)
    counter = Counter(net[0])
    PGD(eps, steps=5, restarts=3)(net, x, y, loss_fn=F.cross_entropy)
    assert (counter.forward, counter.backward) == passes


def test_restarts_take_only_unfooled_examples() -> None:
    net, (x, _) = steep(), data(200)
    y = net(x).argmax(dim=1)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    PGD(0.15, 0.075, 2, restarts=3)(net, x, y, loss_fn=F.cross_entropy)
    runs = [PGD(0.15, 0.075, 2, restarts=n)(net, x, y, loss_fn=F.cross_entropy) for n in (1, 2)]
    first, second = (int((~mistakes(net, run, y)).sum()) for run in runs)
    assert 0 < second < first < 200
    assert sizes[:8] == [200, 200, 200, first, first, first, second, second]


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_restarts_with_a_single_logit(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    line = nn.Linear(6, 1).double()
    x, _ = data(100)
    y = (line(x).flatten() > 0).long()
    sizes: list[int] = []

    def net(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return line(x - 0.01).view(shape)

    attack = PGD(0.05, step_size=0, steps=1, restarts=2)
    attack(net, x, y, loss_fn=LogisticLoss())
    start = PGD(0.05, step_size=0, steps=1)(net, x, y, loss_fn=LogisticLoss())
    right = int(((line(start - 0.01).flatten() > 0) == y).sum())
    assert 0 < right < 100
    assert sizes[:3] == [100, 100, right]


def test_searches_take_the_whole_batch_in_training() -> None:
    """BatchNorm's statistics are of the batch, and of one example there are none."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double().train()
    x, _ = data(40)
    y = net(x).argmax(dim=1)
    y[1:] = (y[1:] + 1) % 3  # one example is right
    sizes: list[int] = []
    net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    for attack in (PGD(0.01, steps=2, restarts=3), Square(0.01, 4)):
        changed = attack(net, x, y, loss_fn=F.cross_entropy) != x
        assert changed[0].any()
        assert set(sizes) == {40}
        assert len(sizes) >= 5
    assert not changed[1:].any()  # Square leaves mistakes


@pytest.mark.parametrize("steps", [1, 3, 10, 40])
def test_default_steps_can_cross_the_ball(steps: int) -> None:
    assert PGD("8/255", steps=steps).step_size == 2.5 * 8 / 255 / steps
    assert PGD(0.3, steps=steps).reach() == pytest.approx(1.5 * 0.3)  # from the far side of a random start


def test_step_size_is_what_is_given() -> None:
    assert PGD(0.3, step_size="2/255", steps=100).step_size == 2 / 255
    assert PGD(0.3, step_size=None, steps=20).step_size == 0.03  # what settings of before the default of today meant


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(PGD, 0.3, step_size="2/255", steps=10), r"PGD: steps \* step_size = 10 \* 0.007843 = .*eps=0.3"),
        (partial(PGD, 0.3, step_size=None, steps=3), r"2.5 \* eps / steps is 0.25"),
        (partial(TorchAttack, "PGD", (0, 1), arguments={"eps": 0.3}), r"TorchAttack PGD: steps \* alpha = 10 \* "),
        (partial(TorchAttack, "PGDL2", (0, 1), arguments={"eps": 3, "steps": 5}), r"alpha = 5 \* 0.2 = 1 "),
        (partial(FoolboxAttack, "LinfPGD", 0.3, arguments={"abs_stepsize": 0.001}), r"40 \* 0.001 = 0.04 "),
        (partial(FoolboxAttack, "L2PGD", 0.3, arguments={"steps": 5}), r"rel_stepsize = 5 \* 0.0075"),
    ],
)
def test_warns_of_steps_that_cannot_reach_the_edge(make: Callable[[], Attack], words: str) -> None:
    with pytest.warns(UserWarning, match=words):
        make()


@pytest.mark.parametrize(
    "make",
    [
        partial(PGD, 0.1, step_size=0.01, steps=10),  # exactly to the edge
        partial(PGD, 0.1, step_size=0, steps=1),  # the random start alone
        partial(PGD, 0),
        partial(TorchAttack, "PGD", (0, 1), arguments={"eps": "8/255"}),
        partial(TorchAttack, "MIFGSM", arguments={"eps": 0.1, "alpha": 0.02}),
        partial(TorchAttack, "FFGSM", (0, 1), arguments={"eps": 0.3}),
        partial(FoolboxAttack, "LinfPGD", 0.3),
        partial(FoolboxAttack, "LinfDeepFoolAttack", 0.3),
    ],
)
def test_does_not_warn_of_other_steps(make: Callable[[], Attack]) -> None:
    make()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"eps": -1}, "eps=-1"),
        ({"eps": 0.1, "step_size": math.nan}, "step_size=nan"),
        ({"eps": 0.1, "step_size": "1/0"}, "step_size='1/0'"),
        ({"eps": 0.1, "steps": 0}, "steps=0"),
        ({"eps": 0.1, "bounds": (1, 0)}, "bounds="),
        ({"eps": 0.1, "restarts": 0}, "restarts=0"),
        ({"eps": 0.1, "restarts": 2, "random_start": False}, "restarts=2.*random_start"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PGD(**arguments)  # type: ignore[arg-type]
