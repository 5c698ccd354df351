"""Training on rubbish class examples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from adv_lightning.attacks.model_mode import kept_buffers
from adv_lightning.callbacks._layer_names import adversarial
from adv_lightning.callbacks.penalty_base import Term
from adv_lightning.data.seeding import mix_seed, process_seed

_STREAM = 2
"""The last number of its seeds, which makes its draws differ from those of the data set and of InputNoise."""


class RubbishTraining(Term):
    """Teaches that noise belongs to no class: adds the loss of N(0, std^2) inputs whose target is "none".

    The target "none" is the uniform distribution for a softmax, and zeros for independent probabilities. The loss is
    the module's `loss_fn.no_class`, a mean over the noise inputs. The noise is drawn anew for each batch, seeded as in
    `InputNoise`. It passes through the network in train mode, in one more forward and backward pass, and changes no
    buffer, such as BatchNorm's running statistics (Goodfellow et al. 2015, appendix A: rubbish class examples, and
    training to resist them).

    Args:
        weight: Factor of the added loss, above 0.
        fraction: Number of noise inputs per example of the batch, above 0. The product is rounded, and is at least 1.
        std: Standard deviation of the noise, in the units of the input, above 0.

    Raises:
        ValueError: an argument is not a finite number above 0.
        TypeError: the module is not an AdversarialModule.
        NotImplementedError: in the first batch, the module's loss does not define `no_class`.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[RubbishTraining(fraction=0.5)])
    """

    def __init__(self, weight: float = 1.0, fraction: float = 1.0, std: float = 1.0) -> None:
        for name, value in (("weight", weight), ("fraction", fraction), ("std", std)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r}: give a finite number above 0")
        self.weight = weight
        self.fraction = fraction
        self.std = std
        self._generator: torch.Generator | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._generator = adversarial(pl_module, self).seeding.streams[_STREAM] = torch.Generator(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seed = process_seed() or 0
        assert self._generator is not None
        self._generator.manual_seed(mix_seed(seed, trainer.current_epoch, trainer.global_rank, batch_idx, _STREAM))

    def term(self, pl_module: LightningModule) -> Callable[[Tensor], Tensor]:
        module = adversarial(pl_module, self)

        def term(x: Tensor) -> Tensor:
            shape = (max(1, round(self.fraction * len(x))), *x.shape[1:])
            noise = torch.empty(shape, dtype=x.dtype, device=x.device).normal_(0, self.std, generator=self._generator)
            with kept_buffers(module) as passes:
                logits = module(noise)
            passes.follow(logits)
            return self.weight * module.loss_fn.no_class(logits)

        return term
