"""Perturbation of hidden layers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adv_lightning.attacks.base import SingleStepAttack
from adv_lightning.attacks.modes import eval_mode
from adv_lightning.callbacks._checks import adversarial
from adv_lightning.module import AdversarialModule
from adv_lightning.sites import LayerSite, PerturbationSite


class HiddenPerturbation(Callback):
    """Perturbs the outputs of hidden layers in training, beside the input or instead of it.

    All directions come from the one gradient of the clean pass, so a step still takes two forward and two backward
    passes. Each rule is applied to what the layer gives in the second pass, where the perturbed input, and layers
    perturbed below, are felt already (Goodfellow et al. 2015, section 6).

    In validation and test the mean absolute output of each layer on clean examples is logged as
    `val/activation/<layer>` and `test/activation/<layer>`: under an additive perturbation units may simply grow.

    Args:
        layers: Dotted names, within the backbone, of the layers whose outputs are perturbed.
        rule: An attack of one step, such as FGSM(eps) or Rotation(angle). Null: perturb nothing, only log.
        relative: Measure each example's perturbation in its root mean square output, instead of in the output's own
            units. FGSM's so has eps times the Euclidean norm of the output.
        perturb_input: Go on perturbing the input by the module's attack.
        force: Perturb the last hidden layer too, which is refused otherwise: what lies above it is linear, no
            universal approximator, and cannot learn to resist; the paper found that it underfits.

    Raises:
        TypeError: `rule` is no SingleStepAttack, or the module no AdversarialModule.
        ValueError: a name is of no layer of the backbone, of the last hidden layer, or of one inside a compiled
            network; or `layers` is empty.
    """

    def __init__(
        self,
        layers: list[str],
        rule: SingleStepAttack | None = None,
        relative: bool = False,
        perturb_input: bool = True,
        force: bool = False,
    ) -> None:
        if not layers or isinstance(layers, str):
            raise ValueError(f"layers={layers!r}: give a list of dotted names of layers, such as [net.maxout1]")
        if rule is not None and not isinstance(rule, SingleStepAttack):
            raise TypeError(f"rule={rule!r}: give an attack of one step, such as FGSM(eps=0.1), or null")
        self.layers = layers
        self.rule = rule
        self.relative = relative
        self.perturb_input = perturb_input
        self.force = force
        self._sites: list[LayerSite] = []
        self._before: list[PerturbationSite] | None = None
        self._probed = False
        self._handles: list[RemovableHandle] = []
        self._sizes: dict[str, list[Tensor]] = {}
        self._fresh: set[str] = set()

    # Training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module = adversarial(pl_module, self)
        known = dict(module.backbone.named_modules())
        for name in self.layers:
            if not name or name not in known:
                names = ", ".join(name for name in known if name)
                raise ValueError(f"layers has {name!r}, which is no layer of the backbone: there are {names}")
        self._sites = [LayerSite(known[name], name, self.rule, relative=self.relative) for name in self.layers]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.rule is None:
            return
        module = adversarial(pl_module, self)
        for name in self.layers:
            _refuse_compiled(module.backbone, name)
        self._before, self._probed = module.sites, self.force
        kept = [site for site in module.sites if self.perturb_input or site is not module.input_site]
        module.sites = [*kept, *self._sites]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._before is not None and not self._probed:
            module = adversarial(pl_module, self)
            self._probed = True
            _refuse_last(module, self._sites, module.unpack(batch)[0])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._take_back(pl_module)

    def _take_back(self, pl_module: LightningModule) -> None:
        self._unwatch()
        if self._before is not None:
            adversarial(pl_module, self).sites, self._before = self._before, None

    # Evaluation

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch()

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._fresh = set(self.layers)

    def on_test_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._fresh = set(self.layers)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, "test")

    def _watch(self) -> None:
        self._unwatch()
        for site in self._sites:
            self._sizes[site.name] = []
            self._handles.append(site.layer.register_forward_hook(self._measure(site.name)))

    def _measure(self, name: str) -> Any:
        def hook(layer: nn.Module, args: Any, output: Any) -> None:
            # The first pass of a batch is the clean one; the others are an attack's.
            if name in self._fresh and isinstance(output, Tensor):
                self._fresh.discard(name)
                size = output.detach().float().abs()
                self._sizes[name].append(torch.stack([size.sum(), size.new_tensor(size.numel())]))

        return hook

    def _log(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for name, sizes in self._sizes.items():
            if sizes:
                total, number = trainer.strategy.reduce(torch.stack(sizes).sum(dim=0), reduce_op="sum")
                pl_module.log(f"{stage}/activation/{name}", total / number)
        self._unwatch()

    def _unwatch(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._sizes = [], {}


def _refuse_compiled(backbone: nn.Module, name: str) -> None:
    parts = name.split(".")
    for path in ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))]:
        module = backbone.get_submodule(path)
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            where = repr(path) if path else "the backbone"
            raise ValueError(
                f"layers has {name!r}, and {where} is compiled, so what happens in it cannot be perturbed: leave out "
                "the compilation (model.compiled=false), or compile the layers around it one by one"
            )


def _refuse_last(module: AdversarialModule, sites: Sequence[LayerSite], x: Tensor) -> None:
    """Raise ValueError if the output of one of the sites is the input of the last module with parameters."""
    outputs: dict[str, Any] = {}
    last: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda layer, args, output: outputs.update({name: output})

    def enter(name: str) -> Any:
        return lambda layer, args: last.update({"name": name, "input": args[0] if args else None})

    handles = [site.layer.register_forward_hook(keep(site.name)) for site in sites]
    for name, layer in module.named_modules():
        if any(True for _ in layer.parameters(recurse=False)):
            handles.append(layer.register_forward_pre_hook(enter(name)))
    try:
        with ExitStack() as stack:
            stack.enter_context(eval_mode(module))
            stack.enter_context(torch.no_grad())
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    for site in sites:
        if site.name not in outputs:
            rank_zero_warn(f"{site!r} did not run in a forward pass in eval mode, so it may be the last hidden one")
        elif _same(outputs[site.name], last.get("input")):
            raise ValueError(
                f"layers has {site.name!r}, the last hidden layer: what lies above it, {last['name']!r}, is no "
                "universal approximator and cannot learn to resist, so the network underfits (Goodfellow et al. 2015, "
                "section 6). Perturb a layer below it, or give force=true"
            )


def _same(a: Any, b: Any) -> bool:
    """Whether two values are tensors in one place, as a layer that does nothing in eval mode hands on its input."""
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.data_ptr() == b.data_ptr()
