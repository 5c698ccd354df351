"""How a network runs: contexts that change it and restore everything afterwards, and whether it is compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class KeptPasses:
    """The passes inside `kept_buffers`.

    `torch.utils.checkpoint` runs layers again in the backward pass, which may come after the context.
    """

    def __init__(self) -> None:
        self._checkpointed: Counter[nn.Module] = Counter()

    def follow(self, logits: Tensor) -> None:
        """Keep the buffers also when the pass that gave `logits` is differentiated later."""
        repeated = tuple(self._checkpointed.items())

        def keep(grad: Tensor) -> None:
            for layer, runs in repeated:
                _keep_in_next_runs(layer, runs)

        if repeated and logits.requires_grad:
            # This hook runs before any layer of this pass runs again, and after those of later passes.
            logits.register_hook(keep)  # type: ignore[no-untyped-call]

    def _note(self, layer: nn.Module, args: Any) -> None:
        if runs_under_checkpoint():
            self._checkpointed[layer] += 1


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[KeptPasses]:
    """Let passes in train mode leave every buffer as it was.

    Layers in train mode get copies of their buffers: BatchNorm's and InstanceNorm's running statistics, the vectors of
    spectral norm, counters. They normalise and draw as without this context.
    """
    passes, copies = KeptPasses(), _Copies()
    with ExitStack() as stack:
        stack.callback(copies.take_back)
        # A compiled network would compile the hooks too. It moves no buffer in its own backward pass.
        compiled = {layer for root in model.modules() if is_compiled(root) for layer in root.modules()}
        for layer in [layer for layer in model.modules() if layer.training]:
            if copies.put(layer) and layer not in compiled:
                stack.callback(layer.register_forward_pre_hook(passes._note).remove)
        yield passes


class _Copies:
    """Copies that stand in for the buffers of layers; layers that share a buffer share its copy."""

    def __init__(self) -> None:
        self._kept: list[tuple[nn.Module, str, Tensor]] = []
        self._of: dict[Tensor, Tensor] = {}
        self._empty: list[tuple[nn.Module, str]] = []

    def put(self, layer: nn.Module) -> bool:
        """Replace a layer's own buffers; return whether it has any."""
        self._empty += [(layer, name) for name, buffer in layer._buffers.items() if buffer is None]
        own = list(layer.named_buffers(recurse=False, remove_duplicate=False))
        for name, buffer in own:
            self._kept.append((layer, name, buffer))
            if buffer not in self._of:
                self._of[buffer] = buffer.detach().clone()
            setattr(layer, name, self._of[buffer])
        return bool(own)

    def take_back(self) -> None:
        for layer, name, buffer in self._kept:
            setattr(layer, name, buffer)
        for layer, name in self._empty:  # one that a layer makes in its first pass
            setattr(layer, name, None)
        self._kept, self._empty = [], []


def _keep_in_next_runs(layer: nn.Module, runs: int) -> None:
    """Let a layer's next runs leave its buffers as they are, if they are in a backward pass."""
    copies, left = _Copies(), runs

    def before(layer: nn.Module, args: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            end()  # the backward pass did not run the layer again
        else:
            copies.put(layer)

    def after(layer: nn.Module, args: Any, output: Any) -> None:
        nonlocal left
        copies.take_back()
        left -= 1
        if left == 0:
            end()

    def end() -> None:
        for hook in hooks:
            hook.remove()

    # First, because a layer's own hooks may move buffers too. At the end in any case, because the checkpoint leaves the
    # layer by an exception once it has recomputed all that it needs.
    hooks = [
        layer.register_forward_pre_hook(before, prepend=True),
        layer.register_forward_hook(after, always_call=True),
    ]


def runs_under_checkpoint() -> bool:
    """Whether this forward pass runs under `torch.utils.checkpoint`, or without gradients, as its older form does."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return not torch.is_grad_enabled() or (hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run in eval mode, then restore the mode of every sub-module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        # By `train`, which a module may override, for example to merge and split its weights.
        model.train(modes[0][1])
        for module, training in modes:
            if module.training != training:
                module.train(training)


class InEvalMode(nn.Module):
    """A model in eval mode that attacks take for one in training if it was, so that they draw anew in every call.

    Use it as a context manager: the model has its own modes again afterwards.

    Args:
        model: x -> logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.copies_inputs = getattr(model, "copies_inputs", False)
        self._modes = ExitStack()

    def __enter__(self) -> InEvalMode:
        self._modes.enter_context(eval_mode(self.model))
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.__exit__(*error)

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


def private_copy(model: Any, x: Tensor) -> Tensor:
    """Return a copy of x, on which a model may work in place.

    A model that makes a copy itself (`copies_inputs = True`) gets x. So does a compiled one where a gradient is taken:
    torch.compile warns of other tensors than leaves, and refuses to work in place on them.
    """
    if getattr(model, "copies_inputs", False):
        return x
    if x.requires_grad and isinstance(model, nn.Module) and any(map(is_compiled, model.modules())):
        return x
    return x.clone()


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile(module)` made this module, or `module.compile()` compiled it in place."""
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules
