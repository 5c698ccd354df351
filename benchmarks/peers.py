"""Training steps with other libraries, as their users write them. A library that is missing raises when asked."""

# mypy: disable-error-code="no-untyped-call"
# torch leaves `backward` untyped, and this is the code that people write.

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALPHA = 0.5
EPS = 0.25

Action = Callable[[], object]


def _train_on(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, x_adv: Tensor, y: Tensor) -> None:
    """Do what is left to the user of a library that only attacks."""
    optimizer.zero_grad()
    loss = ALPHA * F.cross_entropy(net(x), y) + (1 - ALPHA) * F.cross_entropy(net(x_adv), y)
    loss.backward()
    optimizer.step()


def torchattacks(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Action:
    attack = import_module("torchattacks").FGSM(net, eps=EPS)
    return lambda: _train_on(net, optimizer, x, attack(x, y), y)


def foolbox(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Action:
    library = import_module("foolbox")
    model = library.PyTorchModel(net.eval(), bounds=(0, 1), device=x.device)
    attack = library.attacks.LinfFastGradientAttack()

    def step() -> None:
        net.eval()
        _, x_adv, _ = attack(model, x, y, epsilons=EPS)
        net.train()
        _train_on(net, optimizer, x, x_adv, y)

    return step


def art(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Action:
    classifier = import_module("art.estimators.classification").PyTorchClassifier(
        model=net,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu" if x.device.type == "cpu" else "gpu",
    )
    attack = import_module("art.attacks.evasion").FastGradientMethod(classifier, eps=EPS, batch_size=len(x))
    trainer = import_module("art.defences.trainer").AdversarialTrainer(classifier, attack, ratio=0.5)
    images, labels = x.cpu().numpy(), y.cpu().numpy()

    def step() -> None:
        with redirect_stderr(io.StringIO()):  # its progress bars
            trainer.fit(images, labels, batch_size=len(images), nb_epochs=1)

    return step
