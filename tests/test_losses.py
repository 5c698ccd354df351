"""Losses against closed forms.

Length: the losses share most of the tests.
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, LogisticLoss, Loss, RBFLoss, SigmoidLoss, SoftmaxLoss, adversarial_logistic
from adv_lightning.losses import as_loss


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n: int, classes: int) -> Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(9))


def value_and_grad(loss: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


# One logit


def test_logistic_is_the_softplus_of_the_paper() -> None:
    y = labels(20, 2)
    for shape in ((20,), (20, 1)):
        z = (3 * drawn(*shape)).requires_grad_()
        found = value_and_grad(LogisticLoss()(z, y), z)
        naive = torch.log1p(torch.exp((1 - 2 * y) * z.view(20))).mean()
        torch.testing.assert_close(found, value_and_grad(naive, z), rtol=1e-14, atol=1e-15)
        library = F.binary_cross_entropy_with_logits(z.view(20), y.double())
        torch.testing.assert_close(found, value_and_grad(library, z), rtol=1e-14, atol=1e-15)


def test_logistic_gives_the_probabilities_of_both_classes() -> None:
    p = 1 / (1 + math.exp(2))
    expected = torch.tensor([[1 - p, p], [0.5, 0.5], [0, 1]], dtype=torch.float64)
    for shape in ((3,), (3, 1)):
        z = torch.tensor([-2.0, 0.0, 800.0], dtype=torch.float64).view(shape)
        torch.testing.assert_close(LogisticLoss().probabilities(z), expected, rtol=0, atol=1e-15)
        assert LogisticLoss().predict(z).tolist() == [0, 0, 1]
        assert LogisticLoss().predict(z).dtype == torch.int64


def test_logistic_is_linear_far_from_the_boundary() -> None:
    z = torch.tensor([-1e4, 1e4], requires_grad=True)
    value, grad = value_and_grad(LogisticLoss()(z, torch.tensor([1, 0])), z)
    assert value == 1e4
    assert grad.tolist() == [-0.5, 0.5]


def test_logistic_refuses_other_targets() -> None:
    for wrong in (2, -1, 7):
        with pytest.raises(ValueError, match=rf"0 or 1, got {wrong}: .*data\.classes"):
            LogisticLoss()(torch.zeros(3, 1), torch.tensor([0, 1, wrong]))
    with pytest.raises(ValueError, match=r"logits.*\[4\].*targets.*\[4, 1\]"):
        LogisticLoss()(torch.zeros(4), torch.zeros(4, 1).long())


def test_logistic_refuses_logits_of_several_classes() -> None:
    loss = LogisticLoss()
    for shape in ((4, 2), (4, 10), (4, 1, 1)):
        for call in (lambda z: loss(z, labels(4, 2)), loss.probabilities, loss.predict):
            with pytest.raises(ValueError, match=r"\[4, .*\[B\] or \[B, 1\].*LogisticRegression.*SoftmaxLoss"):
                call(torch.zeros(shape))


# The closed form


def logistic(seed: int) -> tuple[nn.Linear, Tensor, Tensor]:
    net = nn.Linear(7, 1).double()
    with torch.no_grad():
        net.weight.copy_(drawn(1, 7, seed=seed))
        net.bias.copy_(drawn(1, seed=seed + 1))
    return net, drawn(30, 7, seed=seed + 2), labels(30, 2)


def test_closed_form_is_the_loss_at_the_fgsm_point() -> None:
    for seed, eps in product(range(5), (0.0, 0.25, 3.0)):
        net, x, y = logistic(seed)
        x_adv = FGSM(eps)(net, x, y, loss_fn=LogisticLoss())
        expected = LogisticLoss()(net(x_adv), y)
        found = adversarial_logistic(net.weight, net.bias, x, y, eps)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        grads = [torch.autograd.grad(loss, [net.weight, net.bias]) for loss in (found, expected)]
        torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def test_closed_form_is_the_worst_of_the_ball() -> None:
    net, x, y = logistic(0)
    corners = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25], dtype=torch.float64)] * 7)
    worst = 0.0
    for example, label in zip(x, y, strict=True):
        logits = net(example + corners).squeeze(1)
        worst += F.softplus((1 - 2 * label) * logits, threshold=100).max().item() / len(x)
    assert adversarial_logistic(net.weight, net.bias, x, y, 0.25).item() == pytest.approx(worst, abs=1e-12)


def test_printed_formula_is_right_only_for_class_1() -> None:
    net, x, _ = logistic(0)
    for y, s in ((torch.ones(30).long(), 1), (torch.zeros(30).long(), -1)):
        z, norm = net(x).squeeze(1), net.weight.abs().sum()
        printed = F.softplus(s * (0.25 * norm - z), threshold=100).mean().item()
        exact = LogisticLoss()(net(FGSM(0.25)(net, x, y, loss_fn=LogisticLoss())), y).item()
        if s == 1:
            assert printed == pytest.approx(exact, abs=1e-12)
        else:
            assert printed < LogisticLoss()(net(x), y).item() < exact


def test_closed_form_takes_images_and_a_flat_weight() -> None:
    net, x, y = logistic(0)
    found = adversarial_logistic(net.weight.flatten(), net.bias.item(), x.view(30, 1, 7, 1), y, 0.25)
    torch.testing.assert_close(found, adversarial_logistic(net.weight, net.bias, x, y, 0.25), rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="0 or 1, got 4"):
        adversarial_logistic(net.weight, net.bias, x, y + 3 * y, 0.25)


# Independent classes


def test_sigmoid_is_a_sum_of_binary_cross_entropies() -> None:
    z, y = (3 * drawn(20, 5)).requires_grad_(), labels(20, 5)
    p, present = z.sigmoid(), F.one_hot(y, 5)
    naive = -(present * p.log() + (1 - present) * (1 - p).log()).sum() / 20
    torch.testing.assert_close(value_and_grad(SigmoidLoss()(z, y), z), value_and_grad(naive, z), rtol=1e-12, atol=1e-14)
    assert torch.equal(SigmoidLoss().probabilities(z), p)
    assert torch.equal(SigmoidLoss().predict(z), p.argmax(1))


def naive_rbf(z: Tensor, y: Tensor) -> Tensor:
    p, present = z.exp(), F.one_hot(y, z.shape[1])
    return -(present * p.log() + (1 - present) * (1 - p).log()).sum() / len(z)


def test_rbf_is_a_sum_of_binary_cross_entropies() -> None:
    z, y = (-drawn(50, 5).square()).clamp(-10, -1e-2).requires_grad_(), labels(50, 5)
    found = value_and_grad(RBFLoss()(z, y), z)
    torch.testing.assert_close(found, value_and_grad(naive_rbf(z, y), z), rtol=1e-10, atol=1e-14)
    assert torch.equal(RBFLoss().probabilities(z), z.exp())
    assert torch.equal(RBFLoss().predict(z), z.argmax(1))


def test_rbf_is_accurate_in_float32() -> None:
    q = torch.logspace(-4.5, 4, 300)
    z = -torch.stack([q, q.flip(0)], dim=1)
    y = torch.zeros(300).long()
    single, double = z.clone().requires_grad_(), z.double().requires_grad_()
    found, expected = value_and_grad(RBFLoss()(single, y), single), value_and_grad(RBFLoss()(double, y), double)
    torch.testing.assert_close(found[0], expected[0].float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1], expected[1].float(), rtol=2e-6, atol=0)
    exact = 1 / (300 * torch.expm1(q.flip(0).double()))  # q' = -z of the wrong class: d/dz of -log(1 - e^z)
    torch.testing.assert_close(expected[1][:, 1], exact, rtol=1e-9, atol=1e-300)


def test_rbf_is_finite_at_both_ends() -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    for q, dtype in product((0.0, 1e-30, 1e-7, 1e-5, 1e-3, math.log(2), 1e4, math.inf), dtypes):
        z = torch.tensor([[-1.0, -q]], dtype=dtype, requires_grad=True)
        near, far = (value_and_grad(RBFLoss()(z, torch.tensor([y])), z) for y in (0, 1))
        assert near[1].isfinite().all(), (q, dtype)
        assert far[1].isfinite().all(), (q, dtype)
        assert near[0].isfinite(), (q, dtype)
        assert far[0].isfinite() or q == math.inf, (q, dtype)  # the target is infinitely far
        if q < 2**-15:
            assert near[0].item() == pytest.approx(1 + 15 * math.log(2), rel=1e-3)


def test_rbf_refuses_positive_logits() -> None:
    with pytest.raises(ValueError, match=r"RBFLoss: .*0\.5.*ShallowRBF"):
        RBFLoss()(torch.tensor([[-1.0, 0.5]]), torch.tensor([0]))


# All of them


LOSSES = [(SoftmaxLoss(), 5), (SigmoidLoss(), 5), (RBFLoss(), 5), (LogisticLoss(), 1)]
losses = pytest.mark.parametrize(("loss", "outputs"), LOSSES, ids=lambda each: str(each))


@losses
def test_is_a_mean_over_examples(loss: Loss, outputs: int) -> None:
    z, y = -drawn(6, outputs).abs(), labels(6, max(2, outputs))
    each = torch.stack([loss(z[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(loss(z, y), each.mean(), rtol=1e-14, atol=0)


@losses
def test_is_twice_differentiable(loss: Loss, outputs: int) -> None:
    z, y = (-drawn(4, outputs).abs() - 0.1).requires_grad_(), labels(4, max(2, outputs))
    assert torch.autograd.gradcheck(lambda z: loss(z, y), z)
    assert torch.autograd.gradgradcheck(lambda z: loss(z, y), z)


@losses
def test_probabilities_and_predictions_agree(loss: Loss, outputs: int) -> None:
    z = -drawn(50, outputs).abs() if isinstance(loss, RBFLoss) else drawn(50, outputs)
    p = loss.probabilities(z)
    assert p.shape == (50, max(2, outputs))
    assert p.min() >= 0
    assert p.max() <= 1
    assert torch.equal(loss.predict(z), p.argmax(dim=1))
    assert loss.probabilities(z[:0]).shape == (0, max(2, outputs))
    assert loss.predict(z[:0]).shape == (0,)


@losses
def test_never_synchronises_off_the_cpu(loss: Loss, outputs: int) -> None:
    # The meta device has no values: asking for one fails.
    z, y = torch.zeros(4, outputs, device="meta"), torch.zeros(4, device="meta").long()
    assert loss(z, y).shape == ()
    assert loss.probabilities(z).shape == (4, max(2, outputs))
    assert loss.predict(z).shape == (4,)


MULTICLASS = [SoftmaxLoss(), SigmoidLoss(), RBFLoss()]


def test_refuses_a_single_logit() -> None:
    for loss in MULTICLASS:
        for call in (loss.predict, lambda z, loss=loss: loss(z, torch.zeros(4).long())):
            with pytest.raises(ValueError, match=r"\[4, 1\].*\[B, K\].*LogisticLoss"):
                call(torch.zeros(4, 1))


# Checks of labels


def test_refuses_labels_of_another_kind() -> None:
    z, y = torch.zeros(4, 3), torch.arange(4) % 2
    for wrong, facts in (
        (y.float(), r"torch\.float32 \[4\]"),
        (F.one_hot(y, 3), r"torch\.int64 \[4, 3\]"),
        (y[:3], r"\[3\] for 4"),
        (y.int(), r"torch\.int32"),
    ):
        for loss in MULTICLASS:
            for call in (loss, loss.check):
                with pytest.raises(ValueError, match=rf"labels.*{facts}.*int64 \[4\].*argmax"):
                    call(z, wrong)
        with pytest.raises(ValueError, match=r"labels.*int64 \[4\]"):
            LogisticLoss().check(z[:, :1], wrong)


def test_refuses_labels_out_of_range() -> None:
    z = torch.zeros(4, 3)
    for low, high in ((0, 3), (-1, 1)):
        y = torch.tensor([low, 0, 1, high])
        for loss in MULTICLASS:
            for call in (loss, loss.check):
                with pytest.raises(ValueError, match=rf"labels.*{low} to {high}.*3 classes.*num_classes"):
                    call(z, y)
    with pytest.raises(ValueError, match="0 or 1, got 2"):
        LogisticLoss().check(z[:, :1], torch.tensor([0, 1, 2, 0]))


def test_accepts_labels_as_bytes() -> None:
    z, y = -drawn(4, 3).abs(), torch.tensor([0, 1, 2, 0])
    for loss in MULTICLASS:
        loss.check(z, y.byte())
        assert loss(z, y.byte()) == loss(z, y)
    LogisticLoss().check(z[:, :1], y.clamp(max=1).byte())


def test_a_loss_of_your_own_checks_nothing() -> None:
    class Own(Loss):
        pass

    Own().check(torch.zeros(4), torch.zeros(7))
    for call, name in ((Own().probabilities, "probabilities"), (Own().no_class, "no_class")):
        with pytest.raises(NotImplementedError, match=rf"Own .*{name}\(logits\)"):
            call(torch.zeros(4, 3))
    with pytest.raises(NotImplementedError, match=r"Own .*forward\(logits, y\)"):
        Own()(torch.zeros(4, 3), torch.zeros(4))


def test_as_loss() -> None:
    assert isinstance(as_loss(None), SoftmaxLoss)
    loss = SigmoidLoss()
    assert as_loss(loss) is loss
    own = as_loss(F.multi_margin_loss)
    z, y = drawn(4, 3), labels(4, 3)
    assert own(z, y) == F.multi_margin_loss(z, y)
    assert torch.equal(own.probabilities(z), z.softmax(1))
    assert "multi_margin_loss" in str(own)
    assert "NLLLoss" in str(as_loss(nn.NLLLoss()))


class Elsewhere(Tensor):
    """A tensor on the CPU that says it is on a GPU."""

    device = torch.device("cuda")  # type: ignore[assignment]


def test_bad_values_off_the_cpu_are_nan() -> None:
    for y in (0, 1):
        assert RBFLoss()(torch.tensor([[-1.0, 0.5]]).as_subclass(Elsewhere), torch.tensor([y])).isnan()
        assert LogisticLoss()(torch.zeros(2), torch.tensor([y, 3]).as_subclass(Elsewhere)).isnan()


# Of no class


def naive_no_class(loss: Loss, z: Tensor) -> Tensor:
    """The mean loss of inputs of no class, by its definition in terms of probabilities."""
    p = loss.probabilities(z)
    if isinstance(loss, SigmoidLoss | RBFLoss):
        return -torch.log(1 - p).sum() / len(z)  # every class is absent
    return -p.log().sum() / p.numel()  # every class is as likely


@losses
def test_no_class(loss: Loss, outputs: int) -> None:
    z = (-2 * drawn(30, outputs).abs() - 0.01 if isinstance(loss, RBFLoss) else 3 * drawn(30, outputs)).requires_grad_()
    found, expected = value_and_grad(loss.no_class(z), z), value_and_grad(naive_no_class(loss, z), z)
    assert found[0].shape == ()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@losses
def test_no_class_and_the_mean_over_all_targets(loss: Loss, outputs: int) -> None:
    z, classes = -drawn(30, outputs).abs() - 0.1, max(2, outputs)
    every = torch.stack([loss(z, torch.full((30,), k)) for k in range(classes)]).mean()
    if isinstance(loss, SigmoidLoss | RBFLoss):
        # Each target has one class present; no class has none.
        p = loss.probabilities(z)
        every = every - (torch.log(1 - p) - p.log()).sum() / (30 * classes)
    torch.testing.assert_close(loss.no_class(z), every, rtol=1e-12, atol=1e-13)


@losses
def test_no_class_is_least_for_unsure_logits(loss: Loss, outputs: int) -> None:
    unsure = -50.0 if isinstance(loss, SigmoidLoss | RBFLoss) else 0.0
    least = loss.no_class(torch.full((4, outputs), unsure))
    assert least.item() == pytest.approx(0 if unsure else math.log(max(2, outputs)), abs=1e-6)
    sure = torch.full((4, outputs), unsure)
    sure[:, 0] = -0.1 if isinstance(loss, RBFLoss) else 5.0
    assert loss.no_class(sure) > least + 0.5


def test_no_class_of_a_single_logit() -> None:
    for shape in ((6,), (6, 1)):
        z = drawn(*shape).requires_grad_()
        value, grad = value_and_grad(LogisticLoss().no_class(z), z)
        expected = torch.log(torch.cosh(z.detach() / 2) * 2).mean()
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(grad, torch.tanh(z.detach() / 2) / 12, rtol=1e-12, atol=1e-15)


def test_no_class_is_finite_far_away() -> None:
    for loss in MULTICLASS:
        z = torch.tensor([[0.0, -1e4, -1e-9]], requires_grad=True)
        value, grad = value_and_grad(loss.no_class(z), z)
        assert value.isfinite()
        assert grad.isfinite().all()
