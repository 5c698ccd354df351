"""Any torchvision classifier by name."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adv_lightning.models._checks import require_positive
from adv_lightning.models.normalize import Normalize

_SMALL = 64
"""Up to this height and width, in pixels, a ResNet gets the stem for small images by default."""


class TorchvisionModel(nn.Module):
    """A torchvision classifier: pixels [B, C, H, W] to logits [B, num_classes].

    `normalize` comes first, then `model`, torchvision's own module. A layer's dotted name is, for example,
    `model.layer1`. For inputs without three channels the first convolution is replaced. GoogLeNet and Inception are
    built without auxiliary classifiers, so that they return one tensor of logits in training too. Vision Transformers
    are built for the height of `input_shape`.

    With `weights`, the last layer gets new random weights unless `num_classes` is the number of classes of the weights.

    Args:
        name: One of `torchvision.models.list_models(torchvision.models)`, such as resnet18.
        num_classes: Number of logits.
        input_shape: (channels, height, width) of one input.
        mean: One value per channel, subtracted from x. None: the mean that the weights were trained with; without
            weights, x is not normalised.
        std: One value per channel, divides x - mean. Give both mean and std, or neither.
        small_input: Give a ResNet the stem for small images: a 3x3 convolution with stride 1 and no max-pooling (He et
            al. 2016, "Deep residual learning", section 4.2) instead of 7x7 with stride 2. None: only for ResNets
            without weights and inputs of at most 64 x 64 pixels.
        weights: Name of pretrained weights, such as DEFAULT or IMAGENET1K_V1. They are downloaded unless torch.hub's
            cache has them. None: random initial weights.

    Raises:
        ValueError: the name or the weights are unknown, only one of mean and std is given, `small_input` is set for a
            network that is not a ResNet, or the weights do not fit a changed first layer.
        OSError: the weights are not on disk and cannot be downloaded.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        small_input: bool | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        require_positive("TorchvisionModel", num_classes=num_classes, input_shape=input_shape)
        if (mean is None) != (std is None):
            raise ValueError(f"TorchvisionModel: give both mean and std or neither, got {mean=}, {std=}")
        channels, height, width = input_shape
        if mean is not None and len(mean) != channels:
            raise ValueError(f"TorchvisionModel: give one mean per channel, got {mean=}, {input_shape=}")
        if weights is None:
            model = _build(name, height, width, num_classes)
        elif small_input or channels != 3:
            raise ValueError(
                f"TorchvisionModel: weights={weights} need {name}'s own first layer and 3 channels, got "
                f"{small_input=}, {input_shape=}: remove weights, or give 3 channels without small_input"
            )
        else:
            model, default_mean, default_std = _pretrained(name, weights, num_classes)
            mean, std = mean or default_mean, std or default_std

        is_resnet = isinstance(model, _library(name).ResNet)
        if small_input and not is_resnet:
            raise ValueError(f"TorchvisionModel: small_input is for ResNets only, got name={name!r}")
        if small_input is None:
            small_input = is_resnet and weights is None and max(height, width) <= _SMALL
        if small_input:
            model.conv1 = nn.Conv2d(channels, model.conv1.out_channels, 3, padding=1, bias=False)
            model.maxpool = nn.Identity()
        elif channels != 3:
            _set_channels(model, channels)
        self.normalize = nn.Identity() if mean is None or std is None else Normalize(mean, std)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.model(self.normalize(x))
        return logits


def _build(name: str, height: int, width: int, num_classes: int) -> Any:
    return _library(name).get_model(name, num_classes=num_classes, **_options(name, height, width))


def _pretrained(name: str, weights: str, num_classes: int) -> tuple[Any, Sequence[float], Sequence[float]]:
    """Return the network with its weights, and the mean and std that they were trained with."""
    library = _library(name)
    known = library.get_model_weights(name).__members__
    if weights not in known:
        raise ValueError(f"TorchvisionModel: {name} has no weights {weights!r}: give one of {', '.join(known)}")
    entry = known[weights]
    try:
        model = library.get_model(name, weights=entry, progress=False)
    except OSError as error:
        raise OSError(
            f"TorchvisionModel: weights={weights} of {name} are not in {torch.hub.get_dir()}/checkpoints, "
            f"and {entry.url} could not be downloaded ({error}): put this file there, or remove weights"
        ) from error
    if name == "inception_v3":
        model.aux_logits, model.AuxLogits = False, None
    if num_classes != len(entry.meta["categories"]):
        path, head = _convolutions_and_linears(model)[-1]
        if isinstance(head, nn.Linear):
            model.set_submodule(path, nn.Linear(head.in_features, num_classes))
        else:
            model.set_submodule(path, nn.Conv2d(head.in_channels, num_classes, head.kernel_size))
    preset = entry.transforms()
    return model, preset.mean, preset.std


def _library(name: str) -> Any:
    """Return `torchvision.models` after checking that it has a classifier of this name."""
    # Late: torchvision takes a second to import, and other networks do not need it.
    from torchvision import models

    names = models.list_models(models)
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.5) or names
        raise ValueError(f"TorchvisionModel: torchvision has no classifier {name!r}. Similar names: {', '.join(near)}")
    return models


def _options(name: str, height: int, width: int) -> dict[str, Any]:
    """Return the arguments that some families need: no auxiliary outputs, the size of the image."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": height}
    if name == "maxvit_t":
        return {"input_size": (height, width)}
    return {}


def _set_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by the same one with another number of input channels."""
    path, old = _convolutions_and_linears(model)[0]
    model.set_submodule(
        path,
        nn.Conv2d(
            channels,
            old.out_channels,
            old.kernel_size,
            stride=old.stride,
            padding=old.padding,
            bias=old.bias is not None,
        ),
    )


def _convolutions_and_linears(model: nn.Module) -> list[tuple[str, Any]]:
    """Return these layers with their names, in order: the first is the stem, the last is the head."""
    return [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
