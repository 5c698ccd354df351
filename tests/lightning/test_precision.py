"""Single, double and half precision."""

from __future__ import annotations

import pytest
import torch

from tests.support.digits import EPS, Inputs, Watch, fit, module


@pytest.mark.switch("works", "precision=64-true")
def test_double_precision() -> None:
    model = module()
    inputs = Inputs(model)
    run = fit(model, precision="64-true")
    assert {x.dtype for x in inputs.seen} == {torch.float64}
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    torch.testing.assert_close(inputs.perturbation().abs().amax().item(), EPS, rtol=0, atol=1e-15)
    assert run.callback_metrics["train/loss"].dtype == torch.float64


@pytest.mark.switch("works", "precision=bf16-mixed")
def test_bfloat16_mixed() -> None:
    model = module()
    inputs, kinds = Inputs(model), set()
    model.backbone.register_forward_hook(lambda _, args, logits: kinds.add(logits.dtype))
    fit(model, precision="bf16-mixed")
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(inputs.perturbation().abs().amax().item(), EPS, rtol=0, atol=1e-7)


@pytest.mark.switch("works", "precision=bf16-true", "precision=16-true")
@pytest.mark.parametrize(("precision", "rounding"), [("bf16-true", 2**-9), ("16-true", 2**-12)])
def test_half_precision_warns_of_rounding(precision: str, rounding: float) -> None:
    model, watch = module(), Watch()
    inputs = Inputs(model)
    with pytest.warns(UserWarning, match=f"{precision}.*{rounding:.1g}.*{precision[:-5]}-mixed"):
        run = fit(model, precision=precision, limit_train_batches=12, callbacks=[watch])
    moved = inputs.perturbation().abs()
    off = (moved[moved > 0] - EPS).abs().max().item()
    assert rounding / 4 < off <= 2 * rounding
    # The figures are summed in single precision.
    mean = run.callback_metrics["train/loss_epoch"]
    assert mean.item() == pytest.approx(sum(watch.losses) / 12, rel=1e-6)
    assert run.callback_metrics["val/loss"].dtype == torch.float32


@pytest.mark.switch("works", "precision=16-mixed on the CPU")
def test_half_precision_on_the_cpu() -> None:
    with pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'`"):
        run = fit(module(), precision="16-mixed")
    assert run.precision == "bf16-mixed"
