"""Maxout networks (Goodfellow, Warde-Farley, Mirza, Courville & Bengio, "Maxout networks", ICML 2013)."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from adv_lightning.models._checks import require_positive

__all__ = ["InputDropout", "Maxout", "MaxoutMLP"]


class Maxout(nn.Linear):
    """Maxout layer: y_u = max over pieces p of (w_{p,u} . x + b_{p,u}); [..., in_features] to [..., units].

    It is a linear layer whose weight, [pieces * units, in_features], holds piece p of unit u in row
    p * units + u. So a norm over dim 1 is the norm of each piece's incoming weights, and whatever is done to
    every ``nn.Linear`` is done here too.

    Where pieces tie for the maximum they share the gradient equally. With zero biases a zero input ties all
    of them: each bias then gets 1 / pieces of its unit's gradient, and the input gets the mean of the pieces.

    Source: Goodfellow et al. 2013, "Maxout networks", section 3.

    Args:
        in_features: size of the input's last dimension.
        units: number of maxima, the size of the output's last dimension.
        pieces: number of linear pieces that each unit takes its maximum of.

    Raises:
        ValueError: if an argument is less than 1.
    """

    def __init__(self, in_features: int, units: int, pieces: int) -> None:
        require_positive("Maxout", in_features=in_features, units=units, pieces=pieces)
        super().__init__(in_features, units * pieces)
        self.units = units
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return each unit's maximum over its pieces."""
        # Pieces before units: on a CPU the maximum of whole rows is several times as fast as over the last
        # dimension (a quarter off forward and backward together at 1600 x 5), and amax beats max.
        pieces = super().forward(x)
        return pieces.view(*pieces.shape[:-1], self.pieces, self.units).amax(-2)

    def extra_repr(self) -> str:
        """Show units and pieces in place of the linear layer's out_features."""
        return f"in_features={self.in_features}, units={self.units}, pieces={self.pieces}"


class InputDropout(nn.Dropout):
    """Dropout without rescaling: zeroes each element with probability p in training, nothing in evaluation.

    The next layer thus sees a smaller input in training than in evaluation, as in the published maxout recipe
    (pylearn2, ``input_include_probs`` .8 with ``input_scales`` 1). Masks come from torch's global generator.

    Args:
        p: probability that an element is zeroed, in [0, 1].

    Raises:
        ValueError: if p is outside [0, 1].
    """

    def __init__(self, p: float = 0.2) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Return x times a fresh 0/1 mask, or x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        # Uniform draws cost a third of bernoulli_ on a CPU; in float32 because bfloat16 draws would bias p.
        keep = torch.rand_like(x, dtype=torch.float32).ge_(self.p)
        return x * keep.to(x.dtype)


class MaxoutMLP(nn.Module):
    """Fully connected maxout network: images [B, C, H, W] to logits [B, num_classes].

    ``net`` holds, in order, ``flatten``, ``input_dropout``, ``maxout1``, ``dropout1``, ..., ``linear``; its
    layers are reached by dotted name, as in ``net.maxout1``. The defaults are the permutation-invariant MNIST
    network of Goodfellow et al. 2013, section 5.1, but for ``irange``: the published recipe has .005, as has
    ``configs/mnist_maxout_adv.yaml``; a small network on scikit-learn's digits starts sooner from .05.

    Args:
        num_classes: number of logits.
        input_shape: (channels, height, width) of one input.
        units: maxout units in each hidden layer.
        pieces: linear pieces of each unit.
        layers: number of hidden layers.
        input_dropout: probability that an input value is zeroed in training; what is kept is not rescaled.
        dropout: probability that a hidden unit is zeroed in training; what is kept is divided by 1 - dropout.
        irange: weights are drawn from U(-irange, irange), biases are zero.

    Raises:
        ValueError: if a size is less than 1, a probability outside [0, 1], or irange negative.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        units: int = 240,
        pieces: int = 5,
        layers: int = 2,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
        irange: float = 0.05,
    ) -> None:
        super().__init__()
        require_positive("MaxoutMLP", num_classes=num_classes, input_shape=input_shape, layers=layers)
        if not irange >= 0:
            raise ValueError(f"MaxoutMLP: irange must not be negative, got {irange}.")
        self.irange = irange
        net: OrderedDict[str, nn.Module] = OrderedDict()
        net["flatten"] = nn.Flatten()
        net["input_dropout"] = InputDropout(input_dropout)
        width = math.prod(input_shape)
        for i in range(1, layers + 1):
            net[f"maxout{i}"] = Maxout(width, units, pieces)
            net[f"dropout{i}"] = nn.Dropout(dropout)
            width = units
        net["linear"] = nn.Linear(width, num_classes)
        self.net = nn.Sequential(net)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight anew from U(-irange, irange), and zero the biases."""
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, -self.irange, self.irange)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(x)
        return logits
