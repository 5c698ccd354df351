"""A fully connected network of sigmoid units."""

import math
from collections import OrderedDict

from torch import Tensor, nn

from adv_lightning.models._checks import require_positive


class SigmoidMLP(nn.Module):
    """Fully connected network of sigmoid hidden units: images [B, C, H, W] to logits [B, num_classes].

    `net` holds, in order, `flatten`, `linear1`, `sigmoid1`, ..., `linear`; a layer's dotted name is, for example,
    `net.sigmoid1`. It represents the saturating models of Goodfellow et al. 2015, section 6.

    Weights are drawn as in Glorot & Bengio 2010 ("Understanding the difficulty of training deep feedforward neural
    networks", equation 16), but four times as large before a sigmoid, because its slope at 0 is 1/4. Without that
    factor, deeper networks do not learn for epochs. Biases are zero.

    Args:
        num_classes: Number of logits.
        input_shape: (channels, height, width) of one input.
        units: Sigmoid units in each hidden layer.
        layers: Number of hidden layers.

    Raises:
        ValueError: a size is less than 1.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        units: int = 400,
        layers: int = 2,
    ) -> None:
        super().__init__()
        require_positive("SigmoidMLP", num_classes=num_classes, input_shape=input_shape, units=units, layers=layers)
        net: OrderedDict[str, nn.Module] = OrderedDict()
        net["flatten"] = nn.Flatten()
        width = math.prod(input_shape)
        for i in range(1, layers + 1):
            net[f"linear{i}"] = nn.Linear(width, units)
            net[f"sigmoid{i}"] = nn.Sigmoid()
            width = units
        net["linear"] = nn.Linear(width, num_classes)
        self.net = nn.Sequential(net)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, and set biases to zero."""
        for name, layer in self.net.named_children():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gain=1 if name == "linear" else 4)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.net(x)
        return logits
