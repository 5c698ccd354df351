"""Compiled networks, and their memory format."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adv_lightning import AdversarialModule, SingleStepAttack
from adv_lightning.models import SmallConvNet
from tests.lightning.conftest import Command
from tests.support.digits import EPS, NO_DROPOUT, fit, module, net
from tests.support.helpers import weights


@pytest.mark.switch("works", "backbone.compile()")
# inductor calls a compiler
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile(backend: str) -> None:
    model, reference = module(), module()
    model.backbone.compile(backend=backend)
    fit(model)
    fit(reference)
    assert model.state_dict().keys() == reference.state_dict().keys()
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-4, atol=1e-6)


class Step(SingleStepAttack):
    """A step that training may go through."""

    differentiable = True

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        assert grad is not None
        return value + EPS * grad


@pytest.mark.switch("works", "model.compiled=true")
@pytest.mark.slow  # inductor calls a compiler
def test_compiled_by_key(command: Command) -> None:
    arguments = ["--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1", *NO_DROPOUT]
    plain, compiled = command(*arguments), command(*arguments, "--model.compiled=true")
    torch.testing.assert_close(weights(compiled.model), weights(plain.model), rtol=1e-4, atol=1e-6)
    path = compiled.trainer.checkpoint_callback.best_model_path
    again = AdversarialModule.load_from_checkpoint(path)
    assert again.compiled
    assert torch.equal(weights(again), weights(compiled.model))


def test_key_compiles_in_place() -> None:
    model = module(compiled=True)
    assert model.backbone._compiled_call_impl is not None
    assert model.state_dict().keys() == module().state_dict().keys()
    assert module().backbone._compiled_call_impl is None


@pytest.mark.slow
@pytest.mark.switch("refused", "model.compiled=true, differentiable attack")
@pytest.mark.parametrize("by_key", [True, False])
def test_compiled_refuses_differentiable_attack(by_key: bool) -> None:
    compiled: dict[str, Any] = {"compiled": True} if by_key else {"backbone": torch.compile(net())}
    with pytest.raises(ValueError, match=r"'backbone'.*compile.*second derivative"):
        fit(module(attack=Step(), **compiled))


@pytest.mark.switch("works", "model.channels_last=true")
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_channels_last(precision: Any) -> None:
    seen = []

    def run(channels_last: bool) -> AdversarialModule:
        torch.manual_seed(0)
        model = module(SmallConvNet(num_classes=10, input_shape=(1, 8, 8), width=4), channels_last=channels_last)
        convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
        convolution.register_forward_pre_hook(
            lambda m, x: seen.append(x[0].is_contiguous(memory_format=torch.channels_last))
        )
        fit(model, precision=precision, limit_train_batches=2)
        return model

    last = run(True)
    assert all(seen)
    seen.clear()
    first = run(False)
    assert not any(seen)
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if precision == "64-true" else {"rtol": 0.05, "atol": 5e-3}
    torch.testing.assert_close(weights(last), weights(first), **tolerance)
