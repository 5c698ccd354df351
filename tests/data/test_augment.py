from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adv_lightning.data import RandomCropFlip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(x: Tensor, padding: int) -> Tensor:
    """Every shifted and mirrored copy of a batch, with plain slices: [shift down, shift right, mirrored, *x.shape]."""
    height, width = x.shape[2:]
    padded = F.pad(x, [padding] * 4)
    shifts = range(2 * padding + 1)
    cut = [[padded[:, :, dy : dy + height, dx : dx + width] for dx in shifts] for dy in shifts]
    return torch.stack([torch.stack([torch.stack([w, w.flip(3)]) for w in row]) for row in cut])


def test_shifts_and_mirrors() -> None:
    x = torch.rand(200, 3, 6, 5, generator=generator(1))
    out = RandomCropFlip(padding=2)(x, generator())
    same = (windows(x, 2) == out).flatten(4).all(4)  # [5, 5, 2, 200]
    assert (same.sum((0, 1, 2)) == 1).all()
    for used in (same.any(3).any(2).any(1), same.any(3).any(2).any(0), same.any(3).any(1).any(0)):
        assert used.all()


def test_draws_from_the_generator() -> None:
    x = torch.rand(20, 1, 8, 8)
    augment = RandomCropFlip()
    assert torch.equal(augment(x, generator(3)), augment(x, generator(3)))
    assert not torch.equal(augment(x, generator(3)), augment(x, generator(4)))


def test_mirrors_half_and_only_if_asked() -> None:
    x = torch.rand(2000, 1, 2, 4)
    out = RandomCropFlip(padding=0)(x, generator())
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) | mirrored).all()
    assert 900 < int(mirrored.sum()) < 1100  # within 4.5 standard deviations
    assert torch.equal(RandomCropFlip(padding=0, flip=False)(x, generator()), x)


def test_keeps_its_input() -> None:
    x = torch.rand(5, 1, 4, 4)
    before = x.clone()
    RandomCropFlip(padding=0, flip=False)(x, generator()).zero_()
    RandomCropFlip()(x, generator()).zero_()
    assert torch.equal(x, before)


def test_refuses_negative_padding() -> None:
    with pytest.raises(ValueError, match=r"padding.*-1"):
        RandomCropFlip(padding=-1)
