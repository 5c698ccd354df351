"""A shallow radial basis function network."""

import math

import torch
from torch import Tensor, nn

from adv_lightning.models._checks import require_positive


class ShallowRBF(nn.Module):
    """One RBF unit per class: images [B, C, H, W] to logits -q, [B, num_classes], with p = exp(-q).

    q_k = (x - mu_k)' diag(beta_k) (x - mu_k) >= 0. The parameters are the centres `mu` and the logarithm of `beta`,
    both [num_classes, pixels]. Train it with `RBFLoss`. The centres start at zero: move them to the means of the
    classes with `set_centres`.

    Source: Goodfellow et al. 2015, section 7. The formula printed there is missing the minus sign.

    Args:
        num_classes: Number of logits.
        input_shape: (channels, height, width) of one input.
        beta: Initial inverse squared width of every unit in every pixel, above 0.

    Raises:
        ValueError: a size is less than 1, or beta is not above 0.
    """

    def __init__(
        self, num_classes: int = 10, input_shape: tuple[int, int, int] = (1, 28, 28), beta: float = 0.02
    ) -> None:
        super().__init__()
        require_positive("ShallowRBF", num_classes=num_classes, input_shape=input_shape)
        if not 0 < beta < math.inf:
            raise ValueError(f"ShallowRBF: beta must be a finite number above 0, got {beta}")
        shape = num_classes, math.prod(input_shape)
        self.mu = nn.Parameter(torch.zeros(shape))
        self.log_beta = nn.Parameter(torch.full(shape, math.log(beta)))

    def set_centres(self, means: Tensor) -> None:
        """Set the centre of each unit: `means`, [num_classes, C, H, W] or [num_classes, pixels].

        Raises:
            ValueError: the number of classes or pixels differs.
        """
        rows = means.flatten(1)
        if rows.shape != self.mu.shape:
            raise ValueError(
                f"ShallowRBF: means must be {self.mu.shape[0]} centres of {self.mu.shape[1]} pixels, "
                f"got {list(means.shape)}"
            )
        with torch.no_grad():
            self.mu.copy_(rows)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        # Not multiplied out: near a centre the squares would cancel.
        distance = (x.flatten(1).unsqueeze(1) - self.mu).square()
        return -(distance * self.log_beta.exp()).sum(dim=2)


def class_means(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the mean image of each class, [num_classes, ...].

    Args:
        images: Images, floating point, [N, ...].
        labels: Labels, int64 [N], from 0 to num_classes - 1.
        num_classes: Number of classes.

    Raises:
        ValueError: a class has no image.
    """
    counts = labels.bincount(minlength=num_classes)
    if not counts.all():
        missing = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"class_means: classes {missing} of {num_classes} have no image: give at least one of each")
    sums = images.new_zeros(num_classes, *images.shape[1:]).index_add_(0, labels, images)
    return sums / counts.view(-1, *[1] * (images.dim() - 1))
