from __future__ import annotations

import pytest
import torch
from torch import nn

from adv_lightning import FGSM, AdversarialModule, FirstLayer
from adv_lightning.evaluation.first_layer import by_unit, first_layer
from adv_lightning.models import MaxoutMLP, SmallConvNet, SoftmaxRegression
from tests.support.helpers import Batches, quiet_trainer


def section_of(net: nn.Module, shape: tuple[int, ...], filters: int = 50) -> FirstLayer:
    callback = FirstLayer(filters)
    data = Batches((torch.rand(2, *shape), torch.tensor([0, 1])))
    quiet_trainer(callbacks=[callback]).test(AdversarialModule(net, FGSM(0.1)), data, verbose=False)
    return callback


def test_linear_filters_have_the_images_shape() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.Linear(12, 5))
    found = first_layer(net, torch.Size([3, 2, 2]))
    assert found is not None
    name, layer, weights = found
    assert (name, layer) == ("1", net[1])
    assert torch.equal(weights, net[1].weight.detach().view(12, 3, 2, 2))


def test_convolution_filters() -> None:
    net = SmallConvNet(10, (3, 8, 8))
    found = first_layer(net, torch.Size([3, 8, 8]))
    assert found is not None
    assert found[2].shape[1] == 3
    assert isinstance(found[1], nn.Conv2d)


def test_records_the_spread_of_a_single_pixel() -> None:
    net = SoftmaxRegression(3, (1, 4, 4))
    with torch.no_grad():
        net.linear.weight.zero_()
        net.linear.weight[:, 5] = 2.0
    callback = section_of(net, (1, 4, 4))
    assert callback.section is not None
    assert callback.section.record["first_layer"] == {"layer": "linear", "filters": 3, "median_spread_pixels": 0.0}
    assert [picture.name for picture in callback.section.pictures] == ["weights and sign"]


def test_pieces_of_a_maxout_unit_are_neighbours() -> None:
    net = MaxoutMLP(10, (1, 4, 4), units=6, pieces=5, layers=1)
    found = first_layer(net, torch.Size([1, 4, 4]))
    assert found is not None
    _, layer, weights = found
    together = by_unit(layer, weights).flatten(1)
    x = torch.rand(3, 16)
    with torch.no_grad():
        layer.bias.zero_()
    units = (x @ together.T).view(3, 6, 5).amax(2)
    torch.testing.assert_close(layer(x).detach(), units)


def test_draws_some_filters() -> None:
    callback = section_of(MaxoutMLP(10, (1, 4, 4), units=6, pieces=5, layers=1), (1, 4, 4), filters=10)
    assert callback.section is not None
    (picture,) = callback.section.pictures
    assert picture.caption.startswith("The first 10 of 30 filters")
    assert picture.draw().axes


def test_network_without_such_a_layer() -> None:
    callback = section_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (4,))
    assert callback.section is not None
    assert not callback.section.pictures
    assert not callback.section.record


def test_refuses_no_filters() -> None:
    with pytest.raises(ValueError, match="filters=0"):
        FirstLayer(filters=0)
