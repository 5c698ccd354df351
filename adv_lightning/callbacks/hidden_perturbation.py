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
from adv_lightning.attacks.contexts import eval_mode
from adv_lightning.callbacks._module import adversarial, layer_names, named_layers, sites_of
from adv_lightning.methods.sites import LayerSite, single_tensor
from adv_lightning.module import AdversarialModule


class HiddenPerturbation(Callback):
    """Perturbs the outputs of hidden layers in training, beside the input or instead of it.

    All directions come from the one gradient of the clean pass, so a step still takes two forward and two backward
    passes. Each rule is applied to what the layer gives in the second pass, where the perturbed input, and layers
    perturbed below, are felt already (Goodfellow et al. 2015, section 6). The mixture is the module's: with its
    alpha = 1 nothing is perturbed.

    In validation and test the mean absolute output of each layer on all clean examples is logged as
    `val/activation/<layer>` and `test/activation/<layer>`, at the price of a forward pass: under an additive
    perturbation units may simply grow.

    Args:
        layers: Dotted names, within the backbone, of the layers whose outputs are perturbed. In a pass each must run
            once and give one floating-point tensor, [B, ...].
        rule: An attack of one step, such as FGSM(eps) or Rotation(angle). Its units are those of the layer's output.
            Null: perturb none of them, only log.
        relative: Measure each example's perturbation in its root mean square output, instead of in the output's own
            units. FGSM's so has eps times the Euclidean norm of the output.
        perturb_input: Go on perturbing the input, by the module's attack or by InputNoise.
        force: Perturb the last hidden layer too, which is refused otherwise: what lies above it is linear, no
            universal approximator, and cannot learn to resist; the paper found that it underfits.

    Raises:
        TypeError: `rule` is no SingleStepAttack, or the module no AdversarialModule.
        ValueError: when built, `layers` is empty or has a name twice; before training, a name is of no layer of the
            backbone or of one inside a compiled network, or InputNoise is to act and perturb_input is false; in the
            first batch, one layer with a weight or none lies above a layer to perturb, or a layer is none that can be
            perturbed: it runs twice, under torch.utils.checkpoint or torch.no_grad, or gives something else.
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
            raise TypeError(f"rule={rule!r}: give an attack of one step, such as FGSM(eps=0.1), or null")
        self.layers = layer_names(layers)
        self.rule = rule
        self.relative = relative
        self.perturb_input = perturb_input
        self.force = force
        self._sites: list[LayerSite] = []
        self._took_input = False
        self._probed = False
        self._sums: dict[str, Tensor] = {}

    def check(self, module: AdversarialModule) -> None:
        """Raise ValueError unless the module's backbone has the layers, outside of anything compiled."""
        _refuse_compiled(module.backbone, "")
        named_layers(module.backbone, self.layers)
        for name in self.layers:
            _refuse_compiled(module.backbone, name)

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
        self._probed = self.force
        if self.rule is None and self.perturb_input:
            return  # it only measures, which suits every method
        sites = sites_of(module, self)
        self._took_input = not self.perturb_input and sites.perturb_input
        if self._took_input:
            sites.perturb_input = False
        sites.layers.extend(self._sites)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rule = sites_of(adversarial(pl_module, self), self).input_rule if self._took_input else None
        if rule is not None:
            raise ValueError(
                f"perturb_input=False, so {rule!r} would never act at the input: leave out one of the two, such as "
                "callbacks.noise"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._sites and not self._probed:
            module = adversarial(pl_module, self)
            self._probed = True
            _refuse_last(module, self._sites, module.unpack(batch)[0])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._take_back(pl_module)

    def _take_back(self, pl_module: LightningModule) -> None:
        if self._sites or self._took_input:
            sites = sites_of(adversarial(pl_module, self), self)
            sites.layers[:] = [site for site in sites.layers if site not in self._sites]
            sites.perturb_input = sites.perturb_input or self._took_input
        self._sites, self._took_input = [], False

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


def _refuse_compiled(backbone: nn.Module, name: str) -> None:
    """Raise ValueError if the layer of this name, or anything that it is part of, is compiled."""
    parts = name.split(".") if name else []
    for path in (".".join(parts[:depth]) for depth in range(len(parts) + 1)):
        module = backbone.get_submodule(path)
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise ValueError(
                f"HiddenPerturbation: {path or 'the backbone'} is compiled, so what its layers give can be neither "
                "perturbed nor measured: leave out the compilation (model.compiled=false), or compile other layers "
                "one by one"
            )


def _refuse_last(module: AdversarialModule, sites: Sequence[LayerSite], x: Tensor) -> None:
    """Raise ValueError if at most one layer with a weight runs after one of the sites."""
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
            # Biases, and what normalises or scales each unit alone, do not mix units.
            if any(parameter.dim() > 1 for parameter in layer.parameters(recurse=False)):
                stack.callback(layer.register_forward_pre_hook(starts(name)).remove)
        stack.enter_context(eval_mode(module))
        stack.enter_context(torch.no_grad())
        module(x)
    for site in sites:
        if site.name not in above:
            rank_zero_warn(f"{site!r} did not run in a forward pass in eval mode, so it may be the last hidden one")
        elif len(above[site.name]) < 2:
            last = "".join(map(repr, above[site.name])) or "nothing"
            raise ValueError(
                f"layers has {site.name!r}, the last hidden layer or above it: of the layers with a weight, {last} "
                "comes after it, which is no universal approximator and cannot learn to resist, so one must expect "
                "underfitting (Goodfellow et al. 2015, section 6). Perturb a layer below it, or give force=true"
            )
