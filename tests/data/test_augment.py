import pytest
import torch

from adv_lightning.data import RandomCropFlip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(image: torch.Tensor, padding: int, dy: int, dx: int, flip: bool) -> torch.Tensor:
    """Cut a window out of the padded image, with plain slices."""
    _, height, width = image.shape
    padded = torch.zeros(image.shape[0], height + 2 * padding, width + 2 * padding)
    padded[:, padding : padding + height, padding : padding + width] = image
    window = padded[:, dy : dy + height, dx : dx + width]
    return window.flip(2) if flip else window


def test_every_output_is_a_shifted_and_maybe_mirrored_copy_of_its_input() -> None:
    x = torch.rand(200, 3, 6, 5, generator=generator(1))
    out = RandomCropFlip(padding=2)(x, generator())
    choices = [(dy, dx, flip) for dy in range(5) for dx in range(5) for flip in (False, True)]
    used = set()
    for image, result in zip(x, out, strict=True):
        matches = [c for c in choices if torch.equal(shifted(image, 2, *c), result)]
        assert len(matches) == 1
        used.add(matches[0])
    assert {dy for dy, _, _ in used} == {dx for _, dx, _ in used} == set(range(5))
    assert {flip for _, _, flip in used} == {False, True}


def test_the_draw_is_that_of_the_generator() -> None:
    x = torch.rand(20, 1, 8, 8)
    augment = RandomCropFlip()
    assert torch.equal(augment(x, generator(3)), augment(x, generator(3)))
    assert not torch.equal(augment(x, generator(3)), augment(x, generator(4)))


def test_without_padding_only_the_mirror_is_left_and_half_are_mirrored() -> None:
    x = torch.rand(2000, 1, 2, 4)
    out = RandomCropFlip(padding=0)(x, generator())
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) | mirrored).all()
    assert 900 < int(mirrored.sum()) < 1100  # within 4.5 standard deviations
    assert torch.equal(RandomCropFlip(padding=0, flip=False)(x, generator()), x)


def test_the_input_is_left_alone() -> None:
    x = torch.rand(5, 1, 4, 4)
    before = x.clone()
    RandomCropFlip(padding=0, flip=False)(x, generator()).zero_()
    RandomCropFlip()(x, generator()).zero_()
    assert torch.equal(x, before)


def test_negative_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="padding must be 0 or more, got -1"):
        RandomCropFlip(padding=-1)
