"""Networks on 8x8 digits with masked gradients and without, ten kinds of each, small enough to train in seconds.

A kind is drawn anew for each seed: weights, and how strongly it masks. A network with masked gradients is an ordinary
one behind a `Front` that changes the image, the gradient, or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning.attacks import PGD
from adv_lightning.losses import RBFLoss, SoftmaxLoss
from adv_lightning.models import MaxoutMLP, ShallowRBF, class_means

SHAPE = (1, 8, 8)
Change = Callable[[Tensor], Tensor]


class Front(nn.Module):
    """Changes images on their way into a network.

    Args:
        change: Images, [B, 1, 8, 8], to what the network gets.
        net: The network.
    """

    def __init__(self, change: Change, net: nn.Module) -> None:
        super().__init__()
        self.change, self.net = change, net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.change(x))
        return logits


class Scaled(nn.Module):
    """Multiplies a network's logits.

    Args:
        net: The network.
        factor: By what.
    """

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return self.factor * logits


class Squared(nn.Module):
    """The square of each element."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class KWTA(nn.Module):
    """Keeps the largest activations of a layer and sets the others to zero (Xiao, Zhong & Zheng 2020).

    Args:
        share: How many are kept, as a share of all.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        least = x.topk(max(1, round(self.share * x.shape[1])), dim=1).values[:, -1:]
        return torch.where(x >= least, x, 0.0)


def given_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return `value` with the gradient of `surrogate`."""
    return value.detach() + surrogate - surrogate.detach()


def mlp(inputs: int = 64, classes: int = 10) -> nn.Sequential:
    """An ordinary network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, classes))


def cnn() -> nn.Sequential:
    """A small convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


# Fronts: each takes a generator for what differs from seed to seed.


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _pixels(share: float, generator: torch.Generator) -> Tensor:
    """Return a random set of pixels, bool [1, 8, 8]."""
    return (torch.randperm(64, generator=generator) < round(64 * share)).view(SHAPE)


def detached(generator: torch.Generator) -> Change:
    """Cut off the gradient of 40 to 80 % of the pixels."""
    cut = _pixels(_between(0.4, 0.8, generator), generator)
    return lambda x: torch.where(cut, x.detach(), x)


def rounded(generator: torch.Generator) -> Change:
    """Round to 5 grey levels, with a straight-through gradient for 5 to 20 % of the pixels and none for the others."""
    through = _pixels(_between(0.05, 0.2, generator), generator)
    return lambda x: torch.where(through, given_gradient((4 * x).round() / 4, x), (4 * x).round().detach() / 4)


def flipped(generator: torch.Generator) -> Change:
    """Flip the sign of the gradient of 40 to 100 % of the pixels."""
    sign = 1 - 2 * _pixels(_between(0.4, 1, generator), generator).float()
    return lambda x: given_gradient(x, sign * x)


def noisy(generator: torch.Generator) -> Change:
    """Add noise of 0.1 to 0.3 to each pixel."""
    size = _between(0.1, 0.3, generator)
    return lambda x: x + size * torch.randn_like(x)


def dropped(generator: torch.Generator) -> Change:
    """Drop 20 to 50 % of the pixels."""
    share = _between(0.2, 0.5, generator)
    return lambda x: F.dropout(x, share, training=True)


def resized(generator: torch.Generator) -> Change:
    """Enlarge to a random size of up to 12 and pad at random (Xie et al. 2018)."""
    largest = int(_between(10, 13, generator))

    def change(x: Tensor) -> Tensor:
        size = int(torch.randint(8, largest + 1, ()))
        left, top = (int(torch.randint(0, largest - size + 1, ())) for _ in range(2))
        right, bottom = largest - size - left, largest - size - top
        grown = F.pad(F.interpolate(x, (size, size), mode="bilinear"), (left, right, top, bottom))
        return F.interpolate(grown, (8, 8), mode="bilinear")

    return change


def quantised(generator: torch.Generator) -> Change:
    """Round to 3 to 6 grey levels, with a gradient that is zero."""
    levels = int(_between(2, 6, generator))
    return lambda x: (levels * x).round() / levels


def thermometer(generator: torch.Generator) -> Change:
    """Count the thresholds below each pixel, with the gradient of steep sigmoids (Buckman et al. 2018)."""
    steep = 10 ** _between(3, 4.5, generator)
    thresholds = (torch.arange(8) + 0.5) / 8

    def change(x: Tensor) -> Tensor:
        distance = x.unsqueeze(-1) - thresholds
        return given_gradient((distance > 0).float(), (steep * distance).sigmoid()).flatten(1)

    return change


def shattered(generator: torch.Generator) -> Change:
    """Add a small wave that turns thousands of times over the range of the pixels."""
    turns, size = 10 ** _between(3, 4, generator), _between(0.02, 0.05, generator)
    return lambda x: x + size * torch.sin(turns * x)


def argmax_front(generator: torch.Generator) -> Change:
    """Give each pixel the nearest of some grey levels by argmax, with a weak gradient of random signs."""
    levels = torch.linspace(0, 1, int(_between(3, 7, generator)))
    signs = torch.randn(SHAPE, generator=generator).sign()
    return lambda x: given_gradient(levels[(-(x.unsqueeze(-1) - levels).abs()).argmax(-1)], 1e-3 * signs * x)


@dataclass(frozen=True)
class Judged:
    """A trained network in eval mode, and how it is judged.

    Args:
        net: Images, [B, 1, 8, 8], to logits.
        loss: Its loss.
        labels: The class of each digit, -1 if the digit is not judged.
        bounds: Of the attacks.
        bare: The same network with a gradient that leads somewhere; None: the network itself.
    """

    net: nn.Module
    loss: nn.Module
    labels: tuple[int, ...] = tuple(range(10))
    bounds: tuple[float, float] | None = None
    bare: nn.Module | None = None


Make = Callable[[Tensor, Tensor, int], Judged]
"""Trains a network on images, [N, 1, 8, 8] in [0, 1], and labels, int64 [N], with a seed."""


def trained(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: nn.Module | None = None,
    steps: int = 200,
    attack: PGD | None = None,
    rate: float = 0.005,
) -> nn.Module:
    """Train with Adam on batches of 200 and return the network in eval mode."""
    loss = loss or SoftmaxLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for _ in range(steps):
        chosen = torch.randint(len(x), (200,))
        x_step = x[chosen] if attack is None else attack(net, x[chosen], y[chosen], loss_fn=loss)
        optimizer.zero_grad()
        loss(net(x_step), y[chosen]).backward()
        optimizer.step()
    return net.eval()


def _behind(front: Callable[[torch.Generator], Change], inputs: int = 64, change_in_training: bool = True) -> Make:
    """Return how to train an ordinary network behind a front."""

    def make(x: Tensor, y: Tensor, seed: int) -> Judged:
        torch.manual_seed(seed)
        change = front(torch.Generator().manual_seed(seed))
        net = cnn() if seed % 2 and inputs == 64 else mlp(inputs)
        masked = Front(change, net)
        trained(masked if change_in_training else net, x, y)
        straight = Front(lambda x: given_gradient(change(x), _smooth(x, inputs)), net)
        return Judged(masked.eval(), SoftmaxLoss(), bare=straight.eval())

    return make


def _smooth(x: Tensor, inputs: int) -> Tensor:
    """Return what a front stands for, with its true gradient: the image, or its thermometer with a slope."""
    if inputs == 64:
        return x
    thresholds = (torch.arange(8) + 0.5) / 8
    return (8 * (x.unsqueeze(-1) - thresholds) + 0.5).sigmoid().flatten(1)


def saturated(x: Tensor, y: Tensor, seed: int) -> Judged:
    """Multiply the logits by 300 to 3,000, so that the softmax is flat in float32."""
    torch.manual_seed(seed)
    factor = 10 ** _between(2.5, 3.5, torch.Generator().manual_seed(seed))
    net = trained(cnn() if seed % 2 else mlp(), x, y)
    return Judged(Scaled(net, factor).eval(), SoftmaxLoss(), bare=net)


MASKED: dict[str, Make] = {
    "detached pixels": _behind(detached, change_in_training=False),
    "rounding, few pixels bypassed": _behind(rounded),
    "flipped surrogate gradient": _behind(flipped, change_in_training=False),
    "noise when judged": _behind(noisy),
    "dropout when judged": _behind(dropped),
    "random resizing and padding": _behind(resized),
    "saturated softmax": saturated,
    "steep thermometer": _behind(thermometer, inputs=512),
    "shattered gradient": _behind(shattered, change_in_training=False),
    "argmax front": _behind(argmax_front),
}


def _seeded(build: Callable[[], nn.Module], **kwargs: float) -> Make:
    def make(x: Tensor, y: Tensor, seed: int) -> Judged:
        torch.manual_seed(seed)
        return Judged(trained(build(), x, y, steps=int(kwargs.get("steps", 200))), SoftmaxLoss())

    return make


def rbf(x: Tensor, y: Tensor, seed: int) -> Judged:
    """One RBF unit for each class."""
    torch.manual_seed(seed)
    net = ShallowRBF(10, SHAPE, beta=0.1)
    net.set_centres(class_means(x, y, 10))
    return Judged(trained(net, x, y, RBFLoss()), RBFLoss())


def linear_of_two(x: Tensor, y: Tensor, seed: int) -> Judged:
    """Softmax regression of two classes: two digits, or one digit and all others, trained for 10 to 200 steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randperm(10, generator=generator)[:2].tolist()
    labels = tuple({a: 1}.get(digit, 0) if seed % 2 else {a: 1, b: 0}.get(digit, -1) for digit in range(10))
    given = torch.tensor(labels)[y]
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    steps = round(10 ** _between(1, 2.3, generator))
    return Judged(trained(net, x[given >= 0], given[given >= 0], steps=steps), SoftmaxLoss(), labels, bounds=(0, 1))


def adversarially_trained(x: Tensor, y: Tensor, seed: int) -> Judged:
    """Trained on PGD at an eps of 0.05 to 0.2."""
    torch.manual_seed(seed)
    eps = _between(0.05, 0.2, torch.Generator().manual_seed(seed))
    net = cnn() if seed % 2 else mlp()
    return Judged(trained(net, x, y, attack=PGD(eps, step_size=eps / 3, steps=5)), SoftmaxLoss())


def undertrained(x: Tensor, y: Tensor, seed: int) -> Judged:
    """Stopped after 0 to 18 steps."""
    torch.manual_seed(seed)
    return Judged(trained(cnn() if seed % 2 else mlp(), x, y, steps=2 * (seed % 10)), SoftmaxLoss())


def temperature(x: Tensor, y: Tensor, seed: int) -> Judged:
    """Logits multiplied by 0.1 to 10."""
    torch.manual_seed(seed)
    factor = 10 ** _between(-1, 1, torch.Generator().manual_seed(seed))
    return Judged(Scaled(trained(mlp(), x, y), factor).eval(), SoftmaxLoss())


def k_winners(x: Tensor, y: Tensor, seed: int) -> Judged:
    """One hidden layer of 128, of which 20 to 40 % stay."""
    torch.manual_seed(seed)
    share = _between(0.2, 0.4, torch.Generator().manual_seed(seed))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), KWTA(share), nn.Linear(128, 10))
    return Judged(trained(net, x, y), SoftmaxLoss())


def _quadratic() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), Squared(), nn.Linear(64, 10))


def _maxout() -> nn.Module:
    return MaxoutMLP(10, SHAPE, units=32, pieces=3)


HONEST: dict[str, Make] = {
    "MLP": _seeded(mlp),
    "CNN": _seeded(cnn),
    "maxout": _seeded(_maxout),
    "RBF": rbf,
    "quadratic": _seeded(_quadratic),
    "linear, two classes": linear_of_two,
    "adversarially trained": adversarially_trained,
    "undertrained": undertrained,
    "kWTA": k_winners,
    "temperature": temperature,
}
