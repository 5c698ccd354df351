from __future__ import annotations

import pytest
import torch

from adv_lightning.metrics import locality


def test_constant_filter() -> None:
    for height, width in ((28, 28), (3, 7), (1, 2)):
        found = locality(torch.full((2, height, width), -3.0))
        assert found.tolist() == pytest.approx([((height**2 + width**2 - 2) / 12) ** 0.5] * 2, rel=1e-12)


def test_single_pixel_and_no_pixel() -> None:
    weights = torch.zeros(2, 5, 6)
    weights[0, 4, 1] = -1e-20
    found = locality(weights)
    assert found[0] == 0
    assert found[1].isnan()


def test_two_pixels() -> None:
    # Energies 4 and 1, 5 pixels apart: centre at 1/5 of the way, 5 * sqrt(4/5 * 1/5) from it.
    weights = torch.zeros(1, 9, 9)
    weights[0, 1, 2], weights[0, 4, 6] = -2, 1
    assert locality(weights).item() == pytest.approx(2.0, abs=1e-12)


def test_channels_add_their_energy() -> None:
    weights = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    energy = weights.square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(locality(weights), locality(energy), rtol=1e-12, atol=0)


def test_scale_and_place_do_not_matter() -> None:
    weights = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = 7 * weights.flip(-1).transpose(-1, -2)
    wider = torch.nn.functional.pad(weights, (5, 0, 0, 3))
    for other in (moved, wider):
        torch.testing.assert_close(locality(weights), locality(other), rtol=1e-12, atol=0)


def test_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\[784\].*\[N, C, H, W\] or \[N, H, W\]"):
        locality(torch.zeros(784))
