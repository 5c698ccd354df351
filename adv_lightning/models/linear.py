"""Softmax and logistic regression, the shallow networks behind the linear view of adversarial examples."""

import math

from torch import Tensor, nn

from adv_lightning.models._checks import require_positive


class SoftmaxRegression(nn.Module):
    """Linear classifier on the flattened input: images [B, C, H, W] to logits [B, num_classes].

    Args:
        num_classes: Number of logits.
        input_shape: (channels, height, width) of one input.
        zero_init: Start from zero weights and biases, that is from uniform predictions. The loss is convex, so this
            costs nothing. False: `nn.Linear`'s random weights.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        require_positive("SoftmaxRegression", num_classes=num_classes, input_shape=input_shape)
        self.linear = _linear(input_shape, num_classes, zero_init)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class LogisticRegression(nn.Module):
    """Linear classifier for two classes: images [B, C, H, W] to one logit each, [B, 1].

    Train it with `LogisticLoss`. The logit belongs to class 1.

    Args:
        num_classes: Must be 2. It exists so that the number of classes of the data can be linked to it.
        input_shape: (channels, height, width) of one input.
        zero_init: Start from zero weights and bias. The loss is convex, so this costs nothing. False: `nn.Linear`'s
            random weights.

    Raises:
        ValueError: `num_classes` is not 2 or a size is less than 1.
    """

    def __init__(
        self,
        num_classes: int = 2,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        if num_classes != 2:
            raise ValueError(
                f"LogisticRegression: num_classes must be 2, got {num_classes}: choose two classes of the data, such "
                "as data.classes: [3, 7], or use SoftmaxRegression"
            )
        require_positive("LogisticRegression", input_shape=input_shape)
        self.linear = _linear(input_shape, 1, zero_init)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def _linear(input_shape: tuple[int, int, int], outputs: int, zero_init: bool) -> nn.Linear:
    layer = nn.Linear(math.prod(input_shape), outputs)
    if zero_init:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
