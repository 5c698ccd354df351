"""Softmax regression, the shallow network of the linear view of adversarial examples."""

import math

from torch import Tensor, nn

from adv_lightning.models._checks import require_positive

__all__ = ["SoftmaxRegression"]


class SoftmaxRegression(nn.Module):
    """Linear classifier on the flattened input: images [B, C, H, W] to logits [B, num_classes].

    Args:
        num_classes: number of logits.
        input_shape: (channels, height, width) of one input.
        zero_init: start from zero weights and biases, so from uniform predictions; the loss is convex, so
            nothing is lost by it. Otherwise ``nn.Linear``'s own draws.

    Raises:
        ValueError: if a size is less than 1.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        require_positive("SoftmaxRegression", num_classes=num_classes, input_shape=input_shape)
        self.linear = nn.Linear(math.prod(input_shape), num_classes)
        if zero_init:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.linear(x.flatten(1))
        return logits
