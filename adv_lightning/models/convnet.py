"""A small convolutional network for small images."""

from collections import OrderedDict

from torch import Tensor, nn

from adv_lightning.models._checks import require_positive


class SmallConvNet(nn.Module):
    """Six 3x3 convolutions with BatchNorm: images [B, C, H, W] to logits [B, num_classes].

    Three stages of two convolutions, with `width`, 2 `width` and 4 `width` channels, 2x2 max-pooling between them,
    then the mean over positions and a linear layer. About 290 thousand parameters with the default width. `net` holds,
    in order, `stage1`, `pool1`, `stage2`, `pool2`, `stage3`, `mean`, `flatten`, `linear`.

    Args:
        num_classes: Number of logits.
        input_shape: (channels, height, width) of one input; height and width at least 4. Other heights and widths work
            too.
        width: Channels of the first stage.

    Raises:
        ValueError: a size is too small.
    """

    def __init__(self, num_classes: int = 10, input_shape: tuple[int, int, int] = (1, 28, 28), width: int = 32) -> None:
        super().__init__()
        require_positive("SmallConvNet", num_classes=num_classes, input_shape=input_shape, width=width)
        channels, *size = input_shape
        if min(size) < 4:
            raise ValueError(
                "SmallConvNet: height and width must be at least 4, because they are halved twice, got "
                f"input_shape={input_shape}"
            )
        self.net = nn.Sequential(
            OrderedDict(
                stage1=_stage(channels, width),
                pool1=nn.MaxPool2d(2),
                stage2=_stage(width, 2 * width),
                pool2=nn.MaxPool2d(2),
                stage3=_stage(2 * width, 4 * width),
                mean=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(4 * width, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(x)
        return logits


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    # ReLUs are not in place: a hook on a BatchNorm must see, and keep, its output.
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
