from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adv_lightning import LogisticLoss
from adv_lightning.models import LogisticRegression, SoftmaxRegression


def test_zero_init_predicts_uniformly() -> None:
    probabilities = SoftmaxRegression(7, (3, 4, 4))(torch.randn(5, 3, 4, 4)).softmax(1)
    assert torch.equal(probabilities, torch.full((5, 7), 1 / 7))
    logits = LogisticRegression(2, (3, 4, 4))(torch.randn(5, 3, 4, 4))
    assert torch.equal(LogisticLoss().probabilities(logits), torch.full((5, 2), 0.5))


def test_random_init_does_not() -> None:
    logits = SoftmaxRegression(zero_init=False)(torch.rand(5, 1, 28, 28))
    assert logits.shape == (5, 10)
    assert logits.std() > 0
    assert LogisticRegression(zero_init=False)(torch.rand(5, 1, 28, 28)).std() > 0


def test_is_affine_in_the_pixels() -> None:
    model = SoftmaxRegression(4, (2, 3, 3), zero_init=False).double()
    x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    expected = torch.einsum("kchw,bchw->bk", model.linear.weight.view(4, 2, 3, 3), x) + model.linear.bias
    torch.testing.assert_close(model(x), expected)
    single = LogisticRegression(2, (2, 3, 3), zero_init=False).double()
    expected = torch.einsum("chw,bchw->b", single.linear.weight.view(2, 3, 3), x) + single.linear.bias
    torch.testing.assert_close(single(x), expected.unsqueeze(1))


def test_logistic_is_a_softmax_of_opposite_weights() -> None:
    single, double = LogisticRegression(2, (1, 3, 3), zero_init=False), SoftmaxRegression(2, (1, 3, 3))
    with torch.no_grad():
        for one, two in zip(single.parameters(), double.parameters(), strict=True):
            two.copy_(torch.cat([-one / 2, one / 2]))
    single, double = single.double(), double.double()
    x, y = torch.randn(6, 1, 3, 3, dtype=torch.float64), torch.arange(6) % 2
    expected = F.cross_entropy(double(x), y)
    torch.testing.assert_close(LogisticLoss()(single(x), y), expected, rtol=1e-14, atol=0)
    probabilities = LogisticLoss().probabilities(single(x))
    torch.testing.assert_close(probabilities, double(x).softmax(1), rtol=1e-14, atol=0)


def test_refuses_other_numbers_of_classes() -> None:
    with pytest.raises(ValueError, match=r"SoftmaxRegression: num_classes.*1.*0"):
        SoftmaxRegression(0)
    for number in (1, 10):
        with pytest.raises(ValueError, match=rf"LogisticRegression: num_classes.*2.*{number}.*data\.classes"):
            LogisticRegression(number)
