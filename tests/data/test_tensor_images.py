from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adv_lightning.data import TensorImages


def images(number: int = 6) -> Tensor:
    return torch.arange(number * 8, dtype=torch.uint8).view(number, 2, 2, 2)


def test_batch() -> None:
    data = TensorImages(images(), torch.arange(6), scale=64)
    x, y = data.__getitems__([5, 0, 5])
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert torch.equal(x, images()[[5, 0, 5]].float() / 64)
    assert y.tolist() == [5, 0, 5]


def test_every_byte_is_divided_by_255() -> None:
    data = TensorImages(torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1), torch.zeros(256).long())
    x, _ = data.__getitems__(range(256))
    assert torch.equal(x.flatten(), torch.arange(256).float() / 255)


def test_single_images() -> None:
    data = TensorImages(images(), torch.arange(6))
    x, y = data[-1]
    assert torch.equal(x, images()[5].float() / 255)
    assert y.item() == 5
    assert [int(y) for _, y in data] == list(range(6))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batches_are_copies(dtype: torch.dtype) -> None:
    data = TensorImages(images().to(dtype), torch.arange(6), scale=255 if dtype == torch.uint8 else 47)
    before = data.images.clone()
    for part in (*data.__getitems__(range(6)), *data[0]):
        part.add_(1)
    assert torch.equal(data.images, before)
    assert torch.equal(data.labels, torch.arange(6))


def test_transform() -> None:
    def shift(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.rand(len(x), 1, 1, 1, generator=generator)

    data = TensorImages(images(), torch.arange(6), transform=shift)
    assert data.generator is not None
    data.generator.manual_seed(3)
    x, _ = data.__getitems__([1, 2])
    draw = torch.rand(2, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x, images()[1:3].float() / 255 + draw)


def test_to_device() -> None:
    data = TensorImages(images(), torch.arange(6))
    moved = data.to("meta")
    assert (moved.images.device.type, moved.labels.device.type) == ("meta", "meta")
    assert (data.images.device.type, data.labels.device.type) == ("cpu", "cpu")
    assert data.to("cpu").images is data.images


def test_refuses_bad_sets() -> None:
    y = torch.arange(6)
    bad: list[tuple[Tensor, Tensor, dict[str, Any], type[Exception], str]] = [
        (images(), y[:5], {}, ValueError, r"6 images.*\[6\], got \[5\]"),
        (images(0), y[:0], {}, ValueError, "empty"),
        (images(), y.float(), {}, TypeError, r"labels.*int64, got torch\.float32"),
        (images(), y - 1, {}, ValueError, "labels.*0 or more, got -1 to 4"),
        (images(), y, {"num_classes": 5}, ValueError, "labels.*0 to 4, got 0 to 5"),
        (images()[0], y[:2], {}, ValueError, r"\[N, C, H, W\], got \[2, 2, 2\]"),
        (images().double(), y, {}, TypeError, r"uint8 or float32, got torch\.float64"),
        (images().float(), y, {"scale": 1}, ValueError, r"\[0, 1\], got \[0, 47\].*scale"),
        (images().float() * torch.nan, y, {}, ValueError, r"got \[nan, nan\]"),
        (images(), y, {"scale": 0}, ValueError, "scale.*0"),
    ]
    for x, labels, options, error, facts in bad:
        with pytest.raises(error, match=facts):
            TensorImages(x, labels, **options)
