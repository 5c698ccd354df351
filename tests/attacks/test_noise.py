from __future__ import annotations

import math
import zlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import GaussianNoise, Noise, SignNoise, UniformNoise
from tests.support.helpers import mlp

NOISES = [SignNoise(0.25), UniformNoise(0.25), GaussianNoise(0.25)]
noises = pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
N = 200_000


def draws(noise: Noise, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return noise.draw(torch.zeros(N, dtype=dtype), torch.Generator().manual_seed(seed))


def test_signs_are_two_equally_likely_values() -> None:
    drawn = draws(SignNoise(0.25))
    assert set(drawn.tolist()) == {-0.25, 0.25}
    # Within four standard deviations of a binomial count.
    assert abs((drawn > 0).sum().item() - N / 2) < 4 * math.sqrt(N / 4)


def test_uniform_draws_are_uniform() -> None:
    drawn = draws(UniformNoise(0.25))
    assert drawn.min() >= -0.25
    assert drawn.max() <= 0.25
    counts = torch.histc(drawn, bins=50, min=-0.25, max=0.25)
    chi_square = ((counts - N / 50) ** 2 / (N / 50)).sum().item()
    assert chi_square < 49 + 4 * math.sqrt(2 * 49)
    assert abs(drawn.mean().item()) < 4 * 0.25 / math.sqrt(3 * N)


def test_gaussian_draws_are_normal() -> None:
    drawn = draws(GaussianNoise(0.25)) / 0.25
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn**power).mean().item() - moment) < 4 * math.sqrt(variance / N), power
    edges = torch.distributions.Normal(0.0, 1.0).icdf(torch.arange(1, 20) / 20).double()
    counts = torch.bucketize(drawn, edges).bincount(minlength=20)
    assert ((counts - N / 20) ** 2 / (N / 20)).sum() < 19 + 4 * math.sqrt(2 * 19)


@noises
def test_pixels_are_independent(noise: Noise) -> None:
    drawn = draws(noise).view(2, -1)
    correlation = (drawn[0] * drawn[1]).mean() / drawn.square().mean()
    assert abs(correlation.item()) < 4 / math.sqrt(N / 2)
    shifted = (drawn[0, 1:] * drawn[0, :-1]).mean() / drawn.square().mean()
    assert abs(shifted.item()) < 4 / math.sqrt(N / 2)


@noises
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_generator_gives_the_same_numbers_in_every_dtype(noise: Noise, dtype: torch.dtype) -> None:
    drawn = draws(noise, dtype=dtype)
    assert drawn.dtype == dtype
    torch.testing.assert_close(drawn.double(), draws(noise), rtol=0, atol=4 * torch.finfo(dtype).eps)


@noises
def test_cpu_generator_works_for_other_devices(noise: Noise) -> None:
    drawn = noise.draw(torch.zeros(3, 4, device="meta", dtype=torch.float16), torch.Generator())
    assert (drawn.device.type, drawn.dtype, drawn.shape) == ("meta", torch.float16, (3, 4))


@noises
def test_step_draws_from_its_generator(noise: Noise) -> None:
    value = torch.rand(4, 3, 2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rule = type(noise)(0.25)
    rule.generator = torch.Generator().manual_seed(5)
    first, second = rule.step(value, None), rule.step(value, None)
    assert torch.equal(first, value + noise.draw(value, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    rule.generator = None
    third = rule.step(value, None)
    torch.manual_seed(0)
    assert torch.equal(rule.step(value, None), third)
    assert NOISES[0].generator is None


@noises
def test_step_passes_the_gradient_of_its_value(noise: Noise) -> None:
    value = torch.rand(4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(noise.step(value, None).sum(), value)
    assert torch.equal(grad, torch.ones(4, 3))


@pytest.mark.parametrize("kind", [SignNoise, UniformNoise, GaussianNoise])
def test_clips_to_its_bounds(kind: type) -> None:
    x, y = torch.rand(20, 6, dtype=torch.float64), torch.arange(20) % 3
    net = mlp().eval()
    free, held = (kind(0.5, bounds)(net, x, y, loss_fn=F.cross_entropy) for bounds in (None, (0, 1)))
    assert free.min() < 0
    assert free.max() > 1
    assert torch.equal(held, free.clamp(0, 1))
    rule = kind(0.5, (0, 1))
    assert rule.step(x, None).aminmax() == (0, 1)


@noises
def test_eval_mode_is_independent_of_batches_and_order(noise: Noise) -> None:
    net, x, y = mlp(features=40).eval(), torch.rand(12, 40, dtype=torch.float64), torch.arange(12) % 3
    torch.manual_seed(3)
    before = torch.get_rng_state()
    whole = noise(net, x, y, loss_fn=F.cross_entropy)
    assert torch.equal(torch.get_rng_state(), before)
    parts = [noise(net, x[i : i + 5], y[i : i + 5], loss_fn=F.cross_entropy) for i in range(0, 12, 5)]
    order = torch.randperm(12)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(noise(net, x[order], y[order], loss_fn=F.cross_entropy), whole[order])
    assert (whole - x).unique(dim=0).shape[0] == 12
    other = type(noise)(0.25, seed=1)(net, x, y, loss_fn=F.cross_entropy)
    assert ((other != whole).sum(dim=1) > 0).all()


@noises
def test_eval_mode_draws_are_independent_between_examples(noise: Noise) -> None:
    x = torch.arange(5000.0).unsqueeze(1) / 5000
    drawn = noise(nn.Identity().eval(), x, torch.zeros(5000), loss_fn=F.cross_entropy) - x
    assert abs(drawn.mean().item()) < 4 * drawn.std().item() / math.sqrt(5000)
    assert abs((drawn[1:] * drawn[:-1]).mean().item()) < 4 * drawn.var().item() / math.sqrt(5000)


@noises
def test_train_mode_draws_anew(noise: Noise) -> None:
    net, x, y = mlp().train(), torch.rand(12, 6, dtype=torch.float64), torch.arange(12) % 3
    torch.manual_seed(3)
    first, second = (noise(net, x, y, loss_fn=F.cross_entropy) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(noise(net, x, y, loss_fn=F.cross_entropy), first)


@noises
def test_empty_batch(noise: Noise) -> None:
    x, y = torch.rand(0, 6, dtype=torch.float64), torch.arange(0)
    assert noise(mlp().eval(), x, y, loss_fn=F.cross_entropy).shape == (0, 6)


@noises
def test_runs_no_network(noise: Noise) -> None:
    def model(x: Tensor) -> Tensor:
        raise AssertionError("the network ran")

    assert noise(model, torch.rand(2, 3), torch.zeros(2), loss_fn=F.cross_entropy).shape == (2, 3)


def test_eval_mode_seeds_by_the_checksum_of_the_example() -> None:
    x, generator = torch.rand(2, 1, 4, 4), torch.Generator()
    expected = []
    for example in x:
        generator.manual_seed(zlib.crc32(example.numpy().tobytes(), 7))
        expected.append(example + 0.3 * (2 * torch.rand(1, 4, 4, generator=generator) - 1))
    found = UniformNoise(0.3, seed=7)(nn.Identity().eval(), x, torch.zeros(2), loss_fn=F.cross_entropy)
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("kind", [SignNoise, UniformNoise, GaussianNoise])
def test_refuses_bad_sizes(kind: type) -> None:
    name = "std" if kind is GaussianNoise else "eps"
    with pytest.raises(ValueError, match=rf"^{name}=-0.1:"):
        kind(-0.1)
    assert getattr(kind("8/255"), name) == 8 / 255


def test_draw_must_be_defined() -> None:
    with pytest.raises(NotImplementedError, match="Noise must define draw"):
        Noise().step(torch.zeros(2), None)
