"""Maxout networks (Goodfellow, Warde-Farley, Mirza, Courville & Bengio, "Maxout networks", ICML 2013)."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from adv_lightning.models._checks import require_positive


class Maxout(nn.Linear):
    """Maxout layer: y_u = max over pieces p of (w_{p,u} . x + b_{p,u}); [..., in_features] to [..., units].

    It is a linear layer with a weight of shape [pieces * units, in_features]. Row p * units + u holds piece p of unit
    u. So a norm over dim 1 is the norm of each piece's incoming weights, and code that handles every `nn.Linear`
    handles this layer too.

    Pieces that tie for the maximum share the gradient equally. With zero biases, a zero input ties all pieces: each
    bias gets 1 / pieces of its unit's gradient, and the input gets the mean of the pieces.

    Source: Goodfellow et al. 2013, "Maxout networks", section 3.

    Args:
        in_features: Size of the input's last dimension.
        units: Number of maxima, the size of the output's last dimension.
        pieces: Number of linear pieces per unit.

    Raises:
        ValueError: an argument is less than 1.
    """

    def __init__(self, in_features: int, units: int, pieces: int) -> None:
        require_positive("Maxout", in_features=in_features, units=units, pieces=pieces)
        super().__init__(in_features, units * pieces)
        self.units = units
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Return each unit's maximum over its pieces."""
        # Pieces before units: on a CPU a maximum over rows is several times faster than over the last dimension
        # (forward and backward together take a quarter less at 1600 x 5), and amax is faster than max.
        pieces = super().forward(x)
        return pieces.view(*pieces.shape[:-1], self.pieces, self.units).amax(-2)

    def extra_repr(self) -> str:
        """Show units and pieces instead of out_features."""
        return f"in_features={self.in_features}, units={self.units}, pieces={self.pieces}"


class InputDropout(nn.Dropout):
    """Dropout without rescaling: zeroes each element with probability p in training, does nothing in evaluation.

    So the next layer gets a smaller input in training than in evaluation, as in the published maxout recipe (pylearn2,
    `input_include_probs` .8 with `input_scales` 1). Masks are drawn from torch's global generator.

    Args:
        p: Probability that an element is zeroed, in [0, 1].

    Raises:
        ValueError: p is outside [0, 1].
    """

    def __init__(self, p: float = 0.2) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Return x times a new 0/1 mask, or x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        # Uniform draws take a third of the time of bernoulli_ on a CPU. In float32, as bfloat16 draws would bias p.
        keep = torch.rand_like(x, dtype=torch.float32).ge_(self.p)
        return x * keep.to(x.dtype)


class MaxoutMLP(nn.Module):
    """Fully connected maxout network: images [B, C, H, W] to logits [B, num_classes].

    `net` holds, in order, `flatten`, `input_dropout`, `maxout1`, `dropout1`, ..., `linear`; a layer's dotted name is,
    for example, `net.maxout1`. The defaults are the permutation-invariant MNIST network of Goodfellow et al. 2013,
    section 5.1, except for `irange`: the published recipe and `configs/mnist_maxout_adv.yaml` use .005, but a small
    network on scikit-learn's digits starts to learn sooner with .05.

    Args:
        num_classes: Number of logits.
        input_shape: (channels, height, width) of one input.
        units: Maxout units in each hidden layer.
        pieces: Linear pieces per unit.
        layers: Number of hidden layers.
        input_dropout: Probability that an input value is zeroed in training. The other values are not rescaled.
        dropout: Probability that a hidden unit is zeroed in training. The other units are divided by 1 - dropout.
        irange: Weights are drawn from U(-irange, irange), 0 or more. Biases are zero.

    Raises:
        ValueError: a size is less than 1, a probability is outside [0, 1], or irange is negative.
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
            raise ValueError(f"MaxoutMLP: irange must be 0 or more, got {irange}")
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
        """Draw new weights from U(-irange, irange), and set biases to zero."""
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, -self.irange, self.irange)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(x)
        return logits
