"""Any of torchvision's classifiers by name."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adv_lightning.models._checks import require_positive
from adv_lightning.models.normalize import Normalize

__all__ = ["TorchvisionModel"]

_SMALL = 64
"""Largest height or width, in pixels, at which a ResNet gets the stem for small images by default."""


class TorchvisionModel(nn.Module):
    """A torchvision classifier: pixels [B, C, H, W] to logits [B, num_classes].

    ``normalize`` comes first, then ``model``, torchvision's own module, whose layers are reached by dotted
    name, as in ``model.layer1``. Inputs without three channels get a new first convolution. GoogLeNet and
    Inception have no auxiliary classifiers here, so that training too gives one tensor of logits; Vision
    Transformers are built for the height of ``input_shape``.

    With ``weights``, the last layer is drawn anew unless ``num_classes`` is the weights' own number.

    Args:
        name: as in ``torchvision.models.list_models(torchvision.models)``, such as resnet18.
        num_classes: number of logits.
        input_shape: (channels, height, width) of one input.
        mean: one value per channel, subtracted from x. None: the mean the weights were trained with; without
            weights, x is not normalised.
        std: one value per channel, divides x - mean. Given or left out together with mean.
        small_input: give a ResNet the stem for small images, a 3x3 convolution of stride 1 and no max-pooling
            (He et al. 2016, "Deep residual learning", section 4.2), in place of the 7x7 of stride 2. None:
            for ResNets without weights and inputs of at most 64 pixels a side.
        weights: name of pretrained weights, such as DEFAULT or IMAGENET1K_V1; they are downloaded unless
            torch.hub's cache has them. None: random initial weights.

    Raises:
        ValueError: if the name or the weights are unknown, only one of mean and std is given, ``small_input``
            is asked of another family than ResNet, or the weights do not fit a changed first layer.
        OSError: if the weights are neither on disk nor can be downloaded.
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
            raise ValueError(f"TorchvisionModel: give both mean and std or neither, got {mean=}, {std=}.")
        channels, height, width = input_shape
        if mean is not None and len(mean) != channels:
            raise ValueError(f"TorchvisionModel: give one mean per channel, got {mean=}, {input_shape=}.")
        if weights is None:
            model = _build(name, height, width, num_classes)
        elif small_input or channels != 3:
            raise ValueError(
                f"TorchvisionModel: weights={weights} need {name}'s own first layer and 3 channels, got "
                f"{small_input=}, {input_shape=}. Leave weights out, or give 3 channels without small_input."
            )
        else:
            model, default_mean, default_std = _pretrained(name, weights, num_classes)
            mean, std = mean or default_mean, std or default_std

        is_resnet = isinstance(model, _library(name).ResNet)
        if small_input and not is_resnet:
            raise ValueError(f"TorchvisionModel: small_input is for ResNets only, got name={name!r}.")
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
    """Return the network with its weights, and the mean and std that these were trained with."""
    library = _library(name)
    known = library.get_model_weights(name).__members__
    if weights not in known:
        raise ValueError(f"TorchvisionModel: {name} has no weights {weights!r}; it has {', '.join(known)}.")
    entry = known[weights]
    try:
        model = library.get_model(name, weights=entry, progress=False)
    except OSError as error:
        raise OSError(
            f"TorchvisionModel: weights={weights} of {name} are not in {torch.hub.get_dir()}/checkpoints, "
            f"and {entry.url} could not be downloaded ({error}). Put that file there, or leave weights out."
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
    """Return ``torchvision.models``, which has to have a classifier of this name."""
    # Imported late: torchvision takes a second, which the other networks need not wait for.
    from torchvision import models

    names = models.list_models(models)
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.5) or names
        raise ValueError(f"TorchvisionModel: no classifier {name!r} in torchvision; near: {', '.join(near)}.")
    return models


def _options(name: str, height: int, width: int) -> dict[str, Any]:
    """Return what some families must be told: no auxiliary outputs, the size of the image."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": height}
    if name == "maxvit_t":
        return {"input_size": (height, width)}
    return {}


def _set_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of the same kind for another number of input channels."""
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
    """Return them with their names, in order: the first is the stem, the last is the head."""
    return [(path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
