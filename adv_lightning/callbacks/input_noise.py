"""Noise at the input in place of the attack: the control experiment."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from adv_lightning.attacks import FGSM
from adv_lightning.attacks.gradients import input_gradient
from adv_lightning.attacks.model_mode import eval_mode
from adv_lightning.attacks.noise import Noise
from adv_lightning.callbacks._layer_names import adversarial
from adv_lightning.data.seeding import mix_seed, process_seed
from adv_lightning.metrics.running_means import RunningMeans
from adv_lightning.module import AdversarialModule

_MEANS = "noise"
_STREAM = 1
"""The last number of its seeds, which makes its draws differ from the data set's, seeded in the same way."""


class InputNoise(Callback):
    """Trains on noisy inputs in place of the attack's (Goodfellow et al. 2015, section 6).

    The objective is alpha * J(x) + (1 - alpha) * J(x + noise), with the module's alpha. With alpha = 0 training sees
    noisy inputs only, in one forward and one backward pass; with alpha = 1 it sees no noise. Validation and test are
    without noise and use the module's attack as before.

    The noise is drawn anew for each batch from a separate generator. Its seed is computed from the global seed (0 if
    none is set), the epoch, the process and the batch. So a resumed run draws the same noise as an uninterrupted one,
    and each process draws its own.

    With `compare_every_n_steps`, the means over every n-th batch are logged at the end of the epoch: the losses
    `noise/clean_loss`, `noise/loss` and `noise/fgsm_loss`, the last two under the batch's noise and under FGSM of the
    same size; and `noise/dot` and `noise/fgsm_dot`, the mean dot product of the perturbation with the gradient of each
    example's own loss. The comparison runs the network in eval mode and does not change training.

    Args:
        noise: The noise, such as SignNoise, UniformNoise or GaussianNoise.
        compare_every_n_steps: Compare the noise with FGSM on every n-th batch. Null: never.

    Raises:
        TypeError: `noise` is not a `Noise`, or the module is not an AdversarialModule.
        ValueError: when built, `compare_every_n_steps` is below 1, or is given for a noise without a size (`eps` or
            `std`); before training, the input already has a rule.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from adv_lightning import SignNoise
        >>> trainer = Trainer(callbacks=[InputNoise(SignNoise(eps=0.25))])
    """

    def __init__(self, noise: Noise, compare_every_n_steps: int | None = None) -> None:
        if not isinstance(noise, Noise):
            raise TypeError(f"noise={noise!r}: give a Noise, such as SignNoise(eps=0.25)")
        self._size: float | None = getattr(noise, "eps", getattr(noise, "std", None))
        if compare_every_n_steps is not None:
            if compare_every_n_steps < 1:
                raise ValueError(f"compare_every_n_steps={compare_every_n_steps}: give at least 1, or null for never")
            if self._size is None:
                raise ValueError(
                    f"{noise!r} has neither eps nor std, so FGSM has no size to compare at: remove "
                    "compare_every_n_steps"
                )
        self.noise = noise
        self.compare_every_n_steps = compare_every_n_steps

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = adversarial(pl_module, self)
        sites = module.method.sites_for(type(self).__name__)
        if sites.input_rule is not None:
            raise ValueError(f"InputNoise: the input already has the rule {sites.input_rule!r}: remove one of the two")
        sites.input_rule = self.noise
        self.noise.generator = module.seeding.streams[_STREAM] = torch.Generator(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._seed(trainer, batch_idx)
        if self.compare_every_n_steps is None:
            return
        module = adversarial(pl_module, self)
        if batch_idx == 0 or _MEANS not in module.means.parts:
            module.means.parts[_MEANS] = RunningMeans()
        if batch_idx % self.compare_every_n_steps == 0:
            self._compare(module, batch)
            self._seed(trainer, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.compare_every_n_steps is not None:
            means = adversarial(pl_module, self).means.parts[_MEANS].named("{}")
            number = means.pop("number", None)
            if number is not None:  # a run resumed in mid-epoch may see no batch to compare on
                pl_module.log_dict({f"noise/{name}": mean / number for name, mean in means.items()}, sync_dist=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove(pl_module)

    def _remove(self, pl_module: LightningModule) -> None:
        if isinstance(pl_module, AdversarialModule):
            sites = pl_module.method.sites
            if sites is not None and sites.input_rule is self.noise:
                sites.input_rule = None
                pl_module.seeding.streams.pop(_STREAM, None)
        self.noise.generator = None

    def _seed(self, trainer: Trainer, batch_idx: int) -> None:
        seed = process_seed() or 0
        assert self.noise.generator is not None
        self.noise.generator.manual_seed(mix_seed(seed, trainer.current_epoch, trainer.global_rank, batch_idx, _STREAM))

    def _compare(self, module: AdversarialModule, batch: Any) -> None:
        assert self._size is not None
        x, y = module.unpack(batch)
        with eval_mode(module), torch.no_grad():
            clean = input_gradient(module, x, y, loss_fn=module.loss)
            noisy = self.noise.step(x, None)
            fgsm = FGSM(self._size, self.noise.bounds).step(x, clean.grad)
            figures = {
                "clean_loss": clean.loss,
                "loss": module.loss(module(noisy), y),
                "fgsm_loss": module.loss(module(fgsm), y),
                "dot": ((noisy - x) * clean.grad).sum() / len(x),
                "fgsm_dot": ((fgsm - x) * clean.grad).sum() / len(x),
            }
            # Sums over examples, since the last batch may be smaller.
            sums = {name: figure * len(x) for name, figure in figures.items()}
        module.means.parts[_MEANS].add({**sums, "number": torch.full_like(clean.loss, len(x))})
