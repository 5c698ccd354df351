"""Clean images, their perturbation, and the images under attack."""

from __future__ import annotations

import torch

from adv_lightning.evaluation.plots import triptych


def test_shows_clean_perturbation_and_attacked() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 1, 4, 4)
    x_adv = (x + 0.25 * torch.randn(2, 1, 4, 4).sign()).clamp(0, 1)
    y = torch.tensor([0, 1])
    figure = triptych(x, x_adv, y, [(0, 0.9), (1, 0.8)], [(2, 0.7), (1, 0.6)], ["cat", "dog", "owl"])
    axes = figure.axes
    assert len(axes) == 6
    assert [axis.get_title() for axis in axes[:4]] == ["cat\n90%", "dog\n80%", "\u00b10.25", "\u00b10.25"]
    assert [axis.get_title() for axis in axes[4:]] == ["owl\n70%", "dog\n60%"]
    assert [axes[i].title.get_color() for i in (0, 1, 4, 5)] == ["black", "black", "firebrick", "black"]
    assert [axes[i].get_ylabel() for i in (0, 2, 4)] == ["clean", "added", "attack"]
    assert [axes[i].get_xlabel() for i in (4, 5)] == ["true\ncat", "true\ndog"]
    for axis, image in ((axes[0], x[0]), (axes[1], x[1]), (axes[4], x_adv[0]), (axes[5], x_adv[1])):
        assert (axis.images[0].get_array() == image[0].numpy()).all()
    change = (x_adv - x)[0]
    middle = torch.from_numpy(axes[2].images[0].get_array().data)
    assert torch.equal(middle > 0.5, change[0] > 0)
    assert torch.equal(middle < 0.5, change[0] < 0)
