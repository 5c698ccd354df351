"""Properties of any input, on inputs that hypothesis draws.

Length: the parts share the strategies.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, PGD, Attack, Rotation, ScaledGradient, SignNoise, TargetedFGSM, UniformNoise
from adv_lightning.attacks import Rule
from adv_lightning.data.idx import read_idx
from adv_lightning.metrics import (
    Agreement,
    ConfidenceHistogram,
    ErrorRate,
    MistakeClasses,
    MistakeConfidence,
    RubbishRate,
    WrongClassProbability,
    wilson_interval,
)
from tests.methods.test_two_pass_objective import assert_close, expected, found

# The same examples in every run, however busy the machine is.
PROFILE = settings(derandomize=True, deadline=None, max_examples=40)

seeds = st.integers(0, 2**31)
fractions = st.builds("{}/{}".format, st.integers(0, 300), st.integers(100, 255))
sizes = st.one_of(st.sampled_from([0.0, "0", "8/255", 0.25]), fractions, st.floats(0, 3))


# Attacks

Bounds = tuple[float, float] | None


class Case(NamedTuple):
    """A network, a batch and bounds for an attack on it, and eps with its value."""

    net: nn.Module
    x: Tensor
    y: Tensor
    bounds: Bounds
    eps: float | str
    size: float

    def attacked(self, attack: Attack) -> Tensor:
        """Attack, and check what holds for every attack."""
        before = self.x.clone()
        x_adv = attack(self.net, self.x, self.y, loss_fn=F.cross_entropy)
        assert torch.equal(self.x, before)
        assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (before.shape, before.dtype, False)
        assert x_adv.isfinite().all()
        if self.size == 0:
            assert torch.equal(x_adv, before)
        return x_adv.double()

    def rounding(self) -> Tensor:
        """How far each pixel may be off: a rounding of the step and of the sum, and of subnormals."""
        info = torch.finfo(self.x.dtype)
        return 1.5 * info.eps * (self.x.double().abs() + self.size + info.smallest_normal)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = st.integers(1, 4)
    shape = (draw(st.integers(0, 5)), *draw(st.one_of(st.tuples(st.integers(1, 7)), st.tuples(size, size, size))))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    low, high = draw(st.integers(-20, 10)) / 10, draw(st.integers(11, 30)) / 10
    bounds = draw(st.sampled_from([None, (0.0, 1.0), (low, high)]))
    torch.manual_seed(draw(seeds))
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape[1:]), 3)).to(dtype).train(draw(st.booleans()))
    if draw(st.integers(0, 4)) == 4:
        nn.init.zeros_(net[1].weight)  # so all gradients are zero
    x = torch.randn(shape) * draw(st.sampled_from([1, 1e-4, 100])) if bounds is None else torch.empty(shape)
    if bounds is not None:
        x.uniform_(*bounds)
    if draw(st.booleans()):
        x[:1] = 0  # a rotation has no direction there
    x = x.to(dtype) if bounds is None else x.to(dtype).clamp(*bounds)
    if draw(st.booleans()):
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    eps = draw(sizes)
    return Case(net, x, torch.randint(3, shape[:1]), bounds, eps, float(Fraction(eps)))


MAX_NORM: dict[str, Callable[[float | str, Bounds], Attack]] = {
    "FGSM": FGSM,
    "TargetedFGSM": lambda eps, bounds: TargetedFGSM(eps, 1, bounds),
    "SignNoise": SignNoise,
    "UniformNoise": UniformNoise,
    "PGD from x": lambda eps, bounds: PGD(eps, "7/10", 2, random_start=False, bounds=bounds),
    "PGD": lambda eps, bounds: PGD(eps, steps=3, bounds=bounds),
    "PGD with restarts": lambda eps, bounds: PGD(eps, 0.02, 2, bounds=bounds, restarts=3),
}


def assert_within(x_adv: Tensor, case: Case) -> None:
    if case.bounds is not None:
        low, high = torch.tensor(case.bounds, dtype=case.x.dtype).double()
        assert (x_adv >= low).all()
        assert (x_adv <= high).all()


@settings(PROFILE, max_examples=60)
@given(cases())
@pytest.mark.filterwarnings("ignore:PGD.*out of reach:UserWarning")
def test_max_norm_ball_and_bounds(case: Case) -> None:
    for name, attack in MAX_NORM.items():
        x_adv = case.attacked(attack(case.eps, case.bounds))
        assert ((x_adv - case.x.double()).abs() <= case.size + case.rounding()).all(), name
        assert_within(x_adv, case)


@PROFILE
@given(cases())
def test_euclidean_ball_and_bounds(case: Case) -> None:
    x_adv = case.attacked(ScaledGradient(case.eps, "l2", case.bounds))
    length = (x_adv - case.x.double()).flatten(1).norm(dim=1)
    assert (length <= case.size + case.rounding().flatten(1).norm(dim=1)).all()
    assert_within(x_adv, case)


@PROFILE
@given(cases())
def test_rotation_keeps_the_norm(case: Case) -> None:
    x_adv = case.attacked(Rotation(case.eps))
    change = x_adv.flatten(1).norm(dim=1) - case.x.double().flatten(1).norm(dim=1)
    assert (change.abs() <= 4 * case._replace(size=0.0).rounding().flatten(1).norm(dim=1)).all()


# The objective


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """One to three layers with tanh in between, and a batch for them, in float64."""
    widths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    n, classes = draw(st.integers(1, 6)), draw(st.integers(2, 4))
    torch.manual_seed(draw(seeds))
    layers: list[nn.Module] = []
    for before, after in zip(widths, [*widths[1:], classes], strict=True):
        layers += [nn.Linear(before, after), nn.Tanh()]
    net = nn.Sequential(*layers[:-1]).double()
    return net, (torch.randn(n, widths[0], dtype=torch.float64), torch.randint(classes, (n,)))


rules = st.one_of(st.builds(FGSM, sizes), st.builds(ScaledGradient, sizes, st.sampled_from(["l2", "none"])))
# A subnormal alpha would underflow in the gradient.
alphas = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(1e-6, 1))


@settings(PROFILE, max_examples=80)
@given(networks(), alphas, rules, st.booleans())
def test_objective_is_the_mixture_of_two_passes(
    problem: tuple[nn.Module, tuple[Tensor, Tensor]], alpha: float, rule: Rule, replay: bool
) -> None:
    net, batch = problem
    total, reference = expected(net, batch, alpha, rule)
    objective, grads = found(net, batch, alpha, rule, replay=replay)
    torch.testing.assert_close(objective.total.detach(), total, rtol=0, atol=1e-12)
    assert_close(grads, reference, 1e-12)


# Metrics


class Examples(NamedTuple):
    """Probabilities [n, K] in multiples of 1 / `unit`, predictions of two models and targets, [n], and batch sizes."""

    probabilities: Tensor
    a: Tensor
    b: Tensor
    y: Tensor
    unit: int
    batches: list[int]

    def split(self, *parts: Tensor) -> list[tuple[Tensor, ...]]:
        return list(zip(*(part.split(self.batches) for part in parts), strict=True))


@st.composite
def examples(draw: st.DrawFn) -> Examples:
    batches, k = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)), draw(st.integers(2, 4))
    n, unit = sum(batches), draw(st.sampled_from([64, 255]))

    def whole(count: int, below: int) -> Tensor:
        return torch.tensor(list(draw(st.binary(min_size=count, max_size=count))), dtype=torch.int64) % below

    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    probabilities = (whole(n * k, unit + 1).view(n, k).double() / unit).to(dtype)
    return Examples(probabilities, whole(n, k), whole(n, k), whole(n, k), unit, batches)


def same(value: Tensor | float, reference: float) -> bool:
    """Whether two shares are equal in float32, or both NaN."""
    return float(value) == pytest.approx(reference, rel=1e-6, nan_ok=True)


def share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


@settings(PROFILE, max_examples=100)
@given(examples())
def test_metrics_of_mistakes_equal_numpy(data: Examples) -> None:
    k = data.probabilities.shape[1]
    error, classes = ErrorRate(), MistakeClasses(k)
    for predicted, y in data.split(data.a, data.y):
        error.update(predicted, y)
        classes.update(predicted, y)
    confidence, others = MistakeConfidence(), WrongClassProbability()
    for batch in data.split(data.probabilities, data.a, data.y):
        confidence.update(*batch)
        others.update(*batch)
    p, predicted, y = (part.numpy() for part in (data.probabilities.double(), data.a, data.y))
    wrong = predicted != y
    not_y = p.sum(axis=1) - p[np.arange(len(y)), y]
    assert same(error.compute(), share(wrong.sum(), len(y)))
    assert same(confidence.compute(), share(p.max(axis=1)[wrong].sum(), wrong.sum()))
    assert same(others.compute(), share(not_y[wrong].sum(), wrong.sum()))
    assert classes.compute().tolist() == np.bincount(predicted[wrong], minlength=k).tolist()


@settings(PROFILE, max_examples=100)
@given(examples(), st.integers(1, 20), st.sampled_from([1, 2, 8, 16]), st.integers(0, 64))
def test_histogram_and_rubbish_rate_equal_numpy(data: Examples, bins: int, binary_bins: int, threshold: int) -> None:
    bins = bins if data.unit == 64 else binary_bins  # every product with the bins is exact
    k = data.probabilities.shape[1]
    histogram, rubbish = ConfidenceHistogram(bins), RubbishRate(k, threshold / 64)
    for batch in data.split(data.probabilities, data.a, data.y):
        histogram.update(*batch)
        rubbish.update(batch[0])
    p, wrong = data.probabilities.double().numpy(), (data.a != data.y).numpy()
    top = p.max(axis=1)
    index = np.minimum(np.floor(top * bins).astype(int), bins - 1)
    rows = [np.bincount(index[kind], minlength=bins).tolist() for kind in (~wrong, wrong)]
    assert histogram.compute().tolist() == rows
    taken = top > threshold / 64
    counts = np.bincount(p.argmax(axis=1)[taken], minlength=k)
    assert rubbish.taken.tolist() == counts.tolist()
    assert same(rubbish.compute(), share(taken.sum(), len(p)))
    assert same(rubbish.confidence(), share(top[taken].sum(), taken.sum()))
    for found_share, count in zip(rubbish.classes(), counts, strict=True):
        assert same(found_share, share(count, taken.sum()))


@PROFILE
@given(examples())
def test_agreement_equals_numpy(data: Examples) -> None:
    metric = Agreement()
    for batch in data.split(data.a, data.b, data.y):
        metric.update(*batch)
    a, b, y = (part.numpy() for part in (data.a, data.b, data.y))
    among = [np.full(len(y), True), a != y, (a != y) & (b != y)]
    assert metric.total.tolist() == [kind.sum() for kind in among]
    assert metric.equal.tolist() == [(a == b)[kind].sum() for kind in among]
    for value, kind in zip(metric.compute(), among, strict=True):
        assert same(value, share((a == b)[kind].sum(), kind.sum()))


counted = st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@PROFILE
@given(counted, st.floats(0.01, 0.999), st.integers(2, 100))
def test_interval_holds_the_share_and_shrinks_with_n(counts: tuple[int, int], level: float, times: int) -> None:
    count, n = counts
    low, high = wilson_interval(count, n, level)
    assert 0 <= low <= count / n <= high <= 1
    narrow_low, narrow_high = wilson_interval(times * count, times * n, level)
    assert 0 < narrow_high - narrow_low < high - low
    mirrored = wilson_interval(n - count, n, level)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


# IDX files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx")


@st.composite
def headed(draw: st.DrawFn) -> bytes:
    """Bytes with nothing, a magic number or a whole header in front."""
    dims = draw(st.lists(st.one_of(st.integers(1, 3), st.integers(1, 2**32 - 1)), max_size=4))
    magic = draw(st.sampled_from([b"", bytes([0, 0, 8, len(dims)]), bytes([0, 0, 13, len(dims)])]))
    whole = math.prod(dims) if math.prod(dims) <= 81 else 9
    body = draw(st.one_of(st.binary(max_size=20), st.binary(min_size=whole, max_size=whole)))
    return magic + struct.pack(f">{len(dims)}I", *dims) + body


def parsed(data: bytes, ndim: int) -> np.ndarray | None:
    """The content of an IDX file of bytes in `ndim` dimensions, or None if it is not one."""
    start = 4 + 4 * ndim
    if len(data) < start or data[:4] != bytes([0, 0, 8, ndim]):
        return None
    dims = struct.unpack(f">{ndim}I", data[4:start])
    return np.frombuffer(data, np.uint8, offset=start).reshape(dims) if math.prod(dims) == len(data) - start else None


def check_read(path: Path, stored: bytes, ndim: int, content: np.ndarray | None) -> None:
    path.write_bytes(stored)
    if content is None:
        with pytest.raises(ValueError, match=f"{path.name} is "):
            read_idx(path, ndim)
    else:
        images = read_idx(path, ndim)
        assert images.dtype == torch.uint8
        assert images.shape == content.shape
        assert np.array_equal(images.numpy(), content)


@settings(PROFILE, max_examples=150)
@given(data=headed(), ndim=st.integers(1, 4), packed=st.booleans())
def test_any_bytes_are_read_or_refused(folder: Path, data: bytes, ndim: int, packed: bool) -> None:
    name, stored = ("images.gz", gzip.compress(data)) if packed else ("images", data)
    check_read(folder / name, stored, ndim, parsed(data, ndim))


@PROFILE
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_damaged_files_are_refused(folder: Path, shape: list[int], data: st.DataObject) -> None:
    size = math.prod(shape)
    body = data.draw(st.binary(min_size=size, max_size=size))
    whole = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body
    pixels = np.frombuffer(body, np.uint8).reshape(shape)
    for name, stored in (("images", whole), ("images.gz", gzip.compress(whole))):
        check_read(folder / name, stored, len(shape), pixels)
        check_read(folder / name, stored[: data.draw(st.integers(0, len(stored) - 1))], len(shape), None)
    other = bytearray(whole)
    other[data.draw(st.integers(0, 3 + 4 * len(shape)))] ^= data.draw(st.integers(1, 255))
    check_read(folder / "images", bytes(other), len(shape), None)


@PROFILE
@given(data=st.binary(min_size=1).filter(lambda data: not data.startswith(b"\x1f\x8b")))
def test_uncompressed_files_are_refused(folder: Path, data: bytes) -> None:
    check_read(folder / "images.gz", data, 3, None)
