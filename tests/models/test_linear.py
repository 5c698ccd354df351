import pytest
import torch

from adv_lightning.models import SoftmaxRegression


def test_zero_init_predicts_uniformly() -> None:
    probabilities = SoftmaxRegression(7, (3, 4, 4))(torch.randn(5, 3, 4, 4)).softmax(1)
    assert torch.equal(probabilities, torch.full((5, 7), 1 / 7))


def test_other_init_does_not() -> None:
    logits = SoftmaxRegression(zero_init=False)(torch.rand(5, 1, 28, 28))
    assert logits.shape == (5, 10)
    assert logits.std() > 0


def test_is_affine_in_the_pixels() -> None:
    model = SoftmaxRegression(4, (2, 3, 3), zero_init=False).double()
    x = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    expected = torch.einsum("kchw,bchw->bk", model.linear.weight.view(4, 2, 3, 3), x) + model.linear.bias
    torch.testing.assert_close(model(x), expected)


def test_refuses_no_classes() -> None:
    with pytest.raises(ValueError, match="SoftmaxRegression: num_classes must be at least 1, got 0"):
        SoftmaxRegression(0)
