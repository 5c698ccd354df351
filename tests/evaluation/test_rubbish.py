from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from adv_lightning import FGSM, AdversarialModule, Report, RubbishTest, ScaledGradient
from adv_lightning.data.seeding import mix_seed
from adv_lightning.losses import LogisticLoss, RBFLoss, SigmoidLoss
from tests.support.helpers import Batches, mlp, quiet_trainer


def data() -> Batches:
    return Batches((torch.rand(4, 6), torch.tensor([0, 1, 1, 0])))


def drawn(uniform: bool = False) -> Tensor:
    chunks = []
    for i, size in enumerate((100, 100, 50)):
        generator = torch.Generator().manual_seed(mix_seed(0, i))
        chunks.append((torch.rand if uniform else torch.randn)(size, 6, generator=generator))
    return torch.cat(chunks)


def judged(test: RubbishTest, net: nn.Module | None = None, **kwargs: Any) -> tuple[AdversarialModule, Any]:
    torch.manual_seed(0)
    module = AdversarialModule(mlp().float() if net is None else net, **({"attack": FGSM(0.1)} | kwargs))
    trainer = quiet_trainer(callbacks=[test])
    trainer.test(module, data(), verbose=False)
    return module.eval(), trainer


def test_counts_rubbish(tmp_path: Path) -> None:
    module, logger = AdversarialModule(mlp(), FGSM(0.1)).float(), CSVLogger(tmp_path)
    callbacks = [RubbishTest(250), Report()]
    (figures,) = quiet_trainer(callbacks=callbacks, logger=logger).test(module, data(), verbose=False)
    with torch.no_grad():
        probabilities = module.eval()(drawn()).softmax(1)
    taken = probabilities.amax(1) > 0.5
    assert 0 < taken.sum() < 250
    row = json.loads((Path(logger.log_dir) / "metrics.json").read_text(encoding="utf-8"))["test"][-1]
    assert (row["name"], row["n"], row["attack"]) == ("rubbish", 250, None)
    assert row["error"] == figures["test/rubbish_error"] == pytest.approx(taken.float().mean().item())
    assert row["interval"][0] < row["error"] < row["interval"][1]
    assert row["confidence_on_mistakes"] == pytest.approx(probabilities.amax(1)[taken].mean().item(), abs=1e-5)
    classes = probabilities.argmax(1)[taken].bincount(minlength=3) / taken.sum()
    assert row["classes"] == pytest.approx(classes.tolist())


def test_uniform_noise_and_a_threshold() -> None:
    module, trainer = judged(RubbishTest(250, kinds=["uniform"], threshold=0.45))
    with torch.no_grad():
        taken = module(drawn(uniform=True)).softmax(1).amax(1) > 0.45
    assert 0 < taken.sum() < 250
    expected = taken.float().mean().item()
    assert trainer.callback_metrics["test/rubbish_uniform_error"].item() == pytest.approx(expected)


def test_a_step_makes_more_rubbish() -> None:
    test = RubbishTest(250, kinds=["gaussian", "attacked"], eps=0.3)
    module, _ = judged(test)
    z = drawn().requires_grad_()
    (grad,) = torch.autograd.grad(-module(z).log_softmax(1).mean(), z)
    with torch.no_grad():
        taken = module(z + 0.3 * grad.sign()).softmax(1).amax(1) > 0.5
    assert test.section is not None
    noise, attacked = test.section.rows
    assert attacked["error"] == pytest.approx(taken.float().mean().item())
    assert attacked["error"] > noise["error"]
    assert attacked["rubbish"]["step"] == {"attack": FGSM(0.3).config(), "loss": "no class"}


@pytest.mark.parametrize("loss_fn", [SigmoidLoss(), RBFLoss()])
def test_independent_probabilities_may_all_be_small(loss_fn: Any) -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3] * 0 - 5

    test = RubbishTest(10)
    judged(test, Nothing(), loss_fn=loss_fn, attack=None, val_attack=None)
    assert test.section is not None
    (row,) = test.section.rows
    assert (row["error"], row["confidence_on_mistakes"], row["classes"]) == (0, None, None)


def test_default_step_has_the_eps_of_the_modules_attack() -> None:
    test = RubbishTest(10, kinds=["attacked"])
    judged(test, attack=FGSM(0.07))
    assert test.section is not None
    assert test.section.rows[0]["rubbish"]["step"]["attack"]["init_args"]["eps"] == 0.07


def test_without_eps_a_note_says_that_the_step_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    test = RubbishTest(10, kinds=["gaussian", "attacked"])
    judged(test, attack=ScaledGradient(1.0))
    assert test.section is not None
    assert [row["name"] for row in test.section.rows] == ["rubbish"]
    printed = capsys.readouterr().out
    assert "callbacks.rubbish_test.eps" in printed
    assert "--model.val_attack=FGSM" in printed


def test_a_note_about_two_classes(capsys: pytest.CaptureFixture[str]) -> None:
    test = RubbishTest(10)
    module = AdversarialModule(nn.Linear(6, 1), FGSM(0.1), loss_fn=LogisticLoss())
    batch = (torch.rand(4, 6), torch.tensor([0, 1, 1, 0]))
    quiet_trainer(callbacks=[test]).test(module, Batches(batch), verbose=False)
    assert test.section is not None
    assert test.section.rows[0]["error"] == 1
    assert "two classes" in capsys.readouterr().out


def test_no_note_about_two_independent_classes(capsys: pytest.CaptureFixture[str]) -> None:
    judged(RubbishTest(10), nn.Linear(6, 2), loss_fn=SigmoidLoss())
    assert "two classes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"samples": 0}, "samples=0"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"kinds": ["gauss"]}, r"kinds.*'gauss'.*gaussian, uniform, attacked"),
        ({"eps": -1}, "eps=-1"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RubbishTest(**arguments)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
@pytest.mark.filterwarnings("ignore:precision bf16-true")
def test_uses_the_precision_of_the_network(precision: Any) -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    trainer = quiet_trainer(callbacks=[RubbishTest(100, ["gaussian", "attacked"])], precision=precision)
    (figures,) = trainer.test(module, data(), verbose=False)
    assert 0 <= figures["test/rubbish_error"] <= 1
