import pytest
import torch

from adv_lightning.data import TensorImages


def images(number: int = 6) -> torch.Tensor:
    return torch.arange(number * 8, dtype=torch.uint8).view(number, 2, 2, 2)


def test_a_batch_is_the_chosen_images_divided_by_the_scale() -> None:
    data = TensorImages(images(), torch.tensor([0, 1, 2, 3, 4, 5]), scale=64)
    x, y = data.__getitems__([5, 0, 5])
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert torch.equal(x, images()[[5, 0, 5]].float() / 64)
    assert y.tolist() == [5, 0, 5]


def test_every_byte_maps_to_its_255th() -> None:
    data = TensorImages(torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1), torch.zeros(256).long())
    x, _ = data.__getitems__(range(256))
    assert torch.equal(x.flatten(), torch.arange(256).float() / 255)


def test_one_image_has_no_batch_dimension_and_iteration_ends() -> None:
    data = TensorImages(images(), torch.arange(6))
    x, y = data[-1]
    assert torch.equal(x, images()[5].float() / 255)
    assert y.item() == 5
    assert [int(y) for _, y in data] == list(range(6))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_changing_a_batch_leaves_the_set_alone(dtype: torch.dtype) -> None:
    data = TensorImages(images().to(dtype), torch.arange(6), scale=255 if dtype == torch.uint8 else 47)
    before = data.images.clone()
    x, y = data.__getitems__(range(6))
    x.add_(1)
    y.add_(1)
    one, label = data[0]
    one.add_(1)
    label.add_(1)
    assert torch.equal(data.images, before)
    assert torch.equal(data.labels, torch.arange(6))


def test_a_transform_gets_the_batch_and_the_generator() -> None:
    def shift(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + torch.rand(len(x), 1, 1, 1, generator=generator)

    data = TensorImages(images(), torch.arange(6), transform=shift)
    assert data.generator is not None
    data.generator.manual_seed(3)
    x, _ = data.__getitems__([1, 2])
    draw = torch.rand(2, 1, 1, 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x, images()[1:3].float() / 255 + draw)


def test_to_moves_both_tensors_and_leaves_the_original() -> None:
    data = TensorImages(images(), torch.arange(6))
    moved = data.to("meta")
    assert (moved.images.device.type, moved.labels.device.type) == ("meta", "meta")
    assert (data.images.device.type, data.labels.device.type) == ("cpu", "cpu")
    assert data.to("cpu").images is data.images


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (images(), torch.arange(5), {}, ValueError, r"6 images need labels of the shape \[6\], got \[5\]"),
        (images(0), torch.arange(0), {}, ValueError, "the set is empty"),
        (images(), torch.arange(6).float(), {}, TypeError, "labels must be int64, got torch.float32"),
        (images(), torch.arange(6) - 1, {}, ValueError, "labels must be 0 or more, got -1 to 4"),
        (images(), torch.arange(6), {"num_classes": 5}, ValueError, "labels must be from 0 to 4, got 0 to 5"),
        (
            images()[0],
            torch.arange(2),
            {},
            ValueError,
            r"must have the shape \[N, C, H, W\], got \[2, 2, 2\]",
        ),
        (images().double(), torch.arange(6), {}, TypeError, "images must be uint8 or float32"),
        (images().float(), torch.arange(6), {"scale": 1}, ValueError, r"must lie in \[0, 1\], got \[0, 47\]"),
        (images().float() * torch.nan, torch.arange(6), {}, ValueError, "got .nan, nan."),
        (images(), torch.arange(6), {"scale": 0}, ValueError, "scale must be above 0, got 0"),
    ],
)
def test_bad_sets_are_refused(
    x: torch.Tensor, y: torch.Tensor, options: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TensorImages(x, y, **options)  # type: ignore[arg-type]
