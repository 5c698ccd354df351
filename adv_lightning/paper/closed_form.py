"""Logistic regression: the adversarial loss in closed form against the loss on FGSM examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adv_lightning import __version__
from adv_lightning.attacks import FGSM
from adv_lightning.evaluation.from_checkpoint import load_module
from adv_lightning.losses import adversarial_logistic
from adv_lightning.models import LogisticRegression
from adv_lightning.paper.images import test_images

_BATCH = 100


def closed_form(checkpoint: Path, root: Path, eps: float, seed: int) -> dict[str, Any]:
    """Return the largest relative differences of the two losses, and of their gradients, over batches of test images.

    Source: Goodfellow et al. 2015, section 5; alpha 0, not clipped, in float64.

    Args:
        checkpoint: Checkpoint of a trained `LogisticRegression`.
        root: Folder of MNIST.
        eps: Size of the step, in units of the pixels.
        seed: Seed of the training, for the record.

    Raises:
        ValueError: the checkpoint holds another network.
        FileNotFoundError: the data are missing.
    """
    module = load_module(checkpoint).double()
    if not isinstance(module.backbone, LogisticRegression):
        raise ValueError(
            f"{checkpoint} holds a {type(module.backbone).__name__}: give a checkpoint of LogisticRegression"
        )
    images, labels = test_images(checkpoint, root)
    attack = FGSM(eps)
    weight, bias = module.backbone.parameters()
    loss, gradient = 0.0, 0.0
    for x, y in zip(torch.split(images.double(), _BATCH), torch.split(labels, _BATCH), strict=True):
        found = module.loss(module(attack(module, x, y, loss_fn=module.loss)), y)
        exact = adversarial_logistic(weight, bias, x, y, eps)
        loss = max(loss, _difference(found, exact))
        both = (torch.autograd.grad(each, (weight, bias)) for each in (found, exact))
        gradient = max(gradient, *(_difference(a, b) for a, b in zip(*both, strict=True)))
    return {
        "closed_form": {"loss_difference": loss, "gradient_difference": gradient, "n": len(labels)},
        "attack": attack.config(),
        "seed": seed,
        "mode": "eval",
        "versions": {"adv_lightning": __version__, "torch": torch.__version__},
    }


def _difference(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())
