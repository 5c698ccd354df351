"""Perturbation of hidden layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from adv_lightning.attacks.base import SingleStepAttack
from adv_lightning.attacks.model_mode import eval_mode, is_compiled
from adv_lightning.callbacks._layer_names import adversarial, layer_names, named_layers
from adv_lightning.methods.perturbation_sites import LayerSite, single_tensor
from adv_lightning.module import AdversarialModule


class HiddenPerturbation(Callback):
    """Perturbs the outputs of hidden layers in training, in addition to the input or instead of it.

    All directions come from the one gradient of the clean pass, so a step still takes two forward and two backward
    passes. Each rule is applied to the layer's output in the second pass, which already depends on the perturbed input
    and on layers perturbed below (Goodfellow et al. 2015, section 6). The mixture is the module's: with alpha = 1
    nothing is perturbed.

    In validation and test, the mean absolute output of each layer over all clean examples is logged as
    `val/activation/<layer>` and `test/activation/<layer>`; it costs one more forward pass. It shows whether units
    simply grow, which is a way to resist an additive perturbation.

    Args:
        layers: Dotted names, within the backbone, of the layers whose outputs are perturbed. In a pass, each must run
            once and return one floating-point tensor [B, ...].
        rule: A single-step attack, such as FGSM(eps) or Rotation(angle), in the units of the layer's output. Null:
            perturb nothing, only log.
        relative: Measure each example's perturbation in units of the root mean square of its output, instead of in the
            output's own units. FGSM's perturbation then has eps times the Euclidean norm of the output.
        perturb_input: Keep perturbing the input, by the module's attack or by InputNoise.
        force: Allow the last hidden layer too. It is refused otherwise: what lies above it is linear, is not a
            universal approximator, and cannot learn to resist. The paper found that it underfits.

    Raises:
        TypeError: `rule` is not a SingleStepAttack, or the module is not an AdversarialModule.
        ValueError: when built, `layers` is empty or contains a name twice; before training, the backbone has no layer
            of a name, a layer is inside a compiled network, or `perturb_input` is false but InputNoise is used; in the
            first batch, fewer than two layers with a weight run after a layer, or a layer cannot be perturbed because
            it runs twice, runs under torch.utils.checkpoint or torch.no_grad, or returns something else.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from adv_lightning import FGSM
        >>> trainer = Trainer(callbacks=[HiddenPerturbation(["net.maxout1"], FGSM(eps=0.25))])
    """

    def __init__(
        self,
        layers: list[str],
        rule: SingleStepAttack | None = None,
        relative: bool = False,
        perturb_input: bool = True,
        force: bool = False,
    ) -> None:
        if rule is not None and not isinstance(rule, SingleStepAttack):
            raise TypeError(f"rule={rule!r}: give a single-step attack, such as FGSM(eps=0.1), or null")
        self.layers = layer_names(layers)
        self.rule = rule
        self.relative = relative
        self.perturb_input = perturb_input
        self.force = force
        self._sites: list[LayerSite] = []
        self._disabled_input = False
        self._checked_last = False
        self._sums: dict[str, Tensor] = {}

    def check(self, module: AdversarialModule) -> None:
        """Check that the module's backbone has the layers, and that none is inside a compiled module.

        Raises:
            ValueError: a layer is missing or compiled.
        """
        _check_not_compiled(module.backbone, "")
        named_layers(module.backbone, self.layers)
        for name in self.layers:
            _check_not_compiled(module.backbone, name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.check(adversarial(pl_module, self))

    # Training

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = adversarial(pl_module, self)
        if self.rule is not None:
            layers = named_layers(module.backbone, self.layers)
            self._sites = [
                LayerSite(layer, name, self.rule, relative=self.relative)
                for name, layer in zip(self.layers, layers, strict=True)
            ]
        self._checked_last = self.force
        if self.rule is None and self.perturb_input:
            return  # it only measures, which works with every method
        sites = module.method.sites_for(type(self).__name__)
        self._disabled_input = not self.perturb_input and sites.perturb_input
        if self._disabled_input:
            sites.perturb_input = False
        sites.layers.extend(self._sites)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._disabled_input:
            return
        rule = adversarial(pl_module, self).method.sites_for(type(self).__name__).input_rule
        if rule is not None:
            raise ValueError(
                f"perturb_input=False, so the noise {rule!r} would never be used: remove InputNoise "
                "(callbacks.noise=null), or set perturb_input=True"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._sites and not self._checked_last:
            module = adversarial(pl_module, self)
            self._checked_last = True
            _check_not_last(module, self._sites, module.unpack(batch)[0])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove(pl_module)

    def _remove(self, pl_module: LightningModule) -> None:
        sites = pl_module.method.sites if isinstance(pl_module, AdversarialModule) else None
        if sites is not None:  # else it was refused
            sites.layers[:] = [site for site in sites.layers if site not in self._sites]
            sites.perturb_input = sites.perturb_input or self._disabled_input
        self._sites, self._disabled_input = [], False

    # Evaluation

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums = {name: torch.zeros(2, device=pl_module.device) for name in self.layers}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        module = adversarial(pl_module, self)
        x, _ = module.unpack(batch)
        with ExitStack() as stack:
            for name in self.layers:
                handle = module.backbone.get_submodule(name).register_forward_hook(self._measure(name))
                stack.callback(handle.remove)
            stack.enter_context(trainer.precision_plugin.forward_context())
            module(x)

    on_test_batch_start = on_validation_batch_start

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, "test")

    def _measure(self, name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            value = single_tensor(output, name)
            size = value.to(torch.promote_types(value.dtype, torch.float32)).abs().sum()
            self._sums[name] = self._sums[name] + torch.stack([size, torch.full_like(size, value.numel())])

        return hook

    def _log(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for name, sums in self._sums.items():
            total, number = trainer.strategy.reduce(sums, reduce_op="sum")
            if number > 0:
                pl_module.log(f"{stage}/activation/{name}", total / number, sync_dist=True)
        self._sums = {}


def _check_not_compiled(backbone: nn.Module, name: str) -> None:
    """Check that neither the layer of this name nor a module around it is compiled.

    Raises:
        ValueError: one of them is.
    """
    parts = name.split(".") if name else []
    for path in (".".join(parts[:depth]) for depth in range(len(parts) + 1)):
        module = backbone.get_submodule(path)
        if is_compiled(module):
            raise ValueError(
                f"HiddenPerturbation: {path or 'the backbone'} is compiled, so the outputs of its layers cannot be "
                "perturbed or measured. Do not compile it (model.compiled=false), or compile only other layers"
            )


def _check_not_last(module: AdversarialModule, sites: Sequence[LayerSite], x: Tensor) -> None:
    """Check that at least two layers with a weight run after each site.

    Raises:
        ValueError: fewer do.
    """
    above: dict[str, list[str]] = {}

    def ran(name: str) -> Callable[..., None]:
        return lambda layer, args, output: above.update({name: []})

    def starts(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: Any) -> None:
            for names in above.values():
                names.append(name)

        return hook

    with ExitStack() as stack:
        for site in sites:
            stack.callback(site.layer.register_forward_hook(ran(site.name)).remove)
        for name, layer in module.named_modules():
            # Biases, and layers that normalise or scale each unit separately, do not mix units.
            if any(parameter.dim() > 1 for parameter in layer.parameters(recurse=False)):
                stack.callback(layer.register_forward_pre_hook(starts(name)).remove)
        stack.enter_context(eval_mode(module))
        stack.enter_context(torch.no_grad())
        module(x)
    for site in sites:
        if site.name not in above:
            rank_zero_warn(
                f"{site!r} did not run in eval mode, so it was not checked whether it is the last hidden layer"
            )
        elif len(above[site.name]) < 2:
            last = f"only {above[site.name][0]!r} runs" if above[site.name] else "none runs"
            raise ValueError(
                f"layers has {site.name!r}, which is the last hidden layer or above it: of the layers with a weight, "
                f"{last} after it. That is not a universal approximator and cannot learn to resist, so expect "
                "underfitting (Goodfellow et al. 2015, section 6). Perturb a layer below it, or give force=true"
            )
