from __future__ import annotations

import math

import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from adv_lightning import FGSM, RBFLoss
from adv_lightning.data import DigitsDataModule
from adv_lightning.models import ShallowRBF, class_means


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def random_rbf() -> ShallowRBF:
    model = ShallowRBF(4, (1, 3, 3)).double()
    with torch.no_grad():
        model.mu.copy_(drawn(4, 9))
        model.log_beta.copy_(2 * drawn(4, 9) - 1)
    return model


def test_is_a_quadratic_form() -> None:
    model, x = random_rbf(), 1 - drawn(6, 1, 3, 3)
    q = torch.empty(6, 4, dtype=torch.float64)
    for b in range(6):
        for k in range(4):
            d = x[b].flatten() - model.mu[k]
            q[b, k] = d @ torch.diag(model.log_beta[k].exp()) @ d
    torch.testing.assert_close(model(x), -q, rtol=1e-14, atol=0)


def test_starts_with_beta_and_centres() -> None:
    model = ShallowRBF(3, (2, 2, 2), beta=0.5)
    means = drawn(3, 2, 2, 2).float()
    model.set_centres(means)
    x = means.clone()
    x[1, 0, 0, 0] += 2
    logits = model(x)
    assert logits[0, 0] == 0  # exactly, at its centre
    assert logits[1, 1].item() == pytest.approx(-0.5 * 4, rel=1e-6)
    assert model.mu.requires_grad
    assert RBFLoss().probabilities(logits)[2, 2] == 1


def test_precise_near_a_centre() -> None:
    model, x = ShallowRBF(2, (1, 28, 28)), drawn(2, 1, 28, 28).float()
    model.set_centres(x)
    moved = x + 1e-3
    exact = -(0.02 * (moved.double() - x.double()).square()).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model(moved).diagonal().double(), exact, rtol=1e-5, atol=0)


def test_finite_at_a_centre_and_far_away() -> None:
    model = ShallowRBF(3, (1, 2, 2))
    model.set_centres(drawn(3, 4).float())
    for place in (model.mu[0].view(1, 1, 2, 2), torch.full((1, 1, 2, 2), 1e3), torch.full((1, 1, 2, 2), 1e6)):
        for label in (0, 1):
            x = place.detach().clone().requires_grad_()
            loss = RBFLoss()(model(x), torch.tensor([label]))
            grads = torch.autograd.grad(loss, [x, *model.parameters()])
            assert loss.isfinite()
            assert all(grad.isfinite().all() for grad in grads)


def test_fgsm_moves_away_from_the_centre() -> None:
    model = ShallowRBF(2, (1, 3, 3)).double()
    model.set_centres(torch.stack([torch.zeros(9), torch.full((9,), 100.0)]).double())
    x, y = drawn(5, 1, 3, 3), torch.zeros(5).long()
    # The other class is out of reach, so the loss is the distance from the own centre.
    assert torch.equal(FGSM(0.25)(model, x, y, loss_fn=RBFLoss()), x + 0.25)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_ has at least 1 zero")  # corners are never inked
def test_class_means_are_nearest_centroids() -> None:
    data = DigitsDataModule()
    data.setup("fit")
    assert data.train_set is not None
    assert data.val_set is not None
    x, y = data.train_set.images.double() / 16, data.train_set.labels
    means = class_means(x, y, 10)
    library = NearestCentroid().fit(x.flatten(1).numpy(), y.numpy())
    torch.testing.assert_close(means.flatten(1), torch.from_numpy(library.centroids_), rtol=1e-12, atol=1e-14)
    # With equal widths the RBF network is that classifier.
    model = ShallowRBF(10, (1, 8, 8)).double()
    model.set_centres(means)
    val = data.val_set.images.double() / 16
    assert RBFLoss().predict(model(val)).tolist() == library.predict(val.flatten(1).numpy()).tolist()


def test_class_means_need_an_image_of_each_class() -> None:
    with pytest.raises(ValueError, match=r"\[1, 4\] of 5"):
        class_means(torch.zeros(3, 2), torch.tensor([0, 2, 3]), 5)


def test_refuses_bad_beta() -> None:
    for beta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"ShallowRBF: beta.*above 0.*{beta}"):
            ShallowRBF(beta=beta)


def test_refuses_centres_of_another_shape() -> None:
    for shape in ((3, 1, 2, 2), (4, 5)):
        with pytest.raises(ValueError, match=r"4 centres of 4 pixels, got \["):
            ShallowRBF(4, (1, 2, 2)).set_centres(torch.zeros(shape))
