"""Examples whose logits are not finite are mistakes, counted and named, wherever predictions are counted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adv_lightning import FGSM, PGD, AdversarialModule, Attack
from adv_lightning.attacks.pgd import _is_right
from adv_lightning.evaluation import AttackSuite
from adv_lightning.evaluation.attack_counts import AttackCounts, not_finite_named
from adv_lightning.evaluation.comparison import Comparison
from adv_lightning.evaluation.pictures import guess
from adv_lightning.losses import LogisticLoss, SigmoidLoss, SoftmaxLoss, predicted_classes
from adv_lightning.metrics import Agreement, RubbishRate
from tests.support.helpers import Batches, mlp, quiet_trainer

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("loss", [SoftmaxLoss(), SigmoidLoss()], ids=str)
def test_predicted_classes(loss: Any) -> None:
    logits = torch.tensor([[3.0, 1, 2], [NAN, 1, 2], [0, NAN, 2], [INF, 1, 2], [-INF] * 3, [-INF, 1, 2]])
    assert predicted_classes(loss, logits).tolist() == [0, -1, -1, -1, -1, 2]


def test_predicted_classes_of_single_logits() -> None:
    for shape in ((3,), (3, 1)):
        logits = torch.tensor([2.0, NAN, -1]).view(shape)
        assert predicted_classes(LogisticLoss(), logits).tolist() == [1, -1, 0]


class Breaks(nn.Module):
    """Right on all clean inputs below 2; where one is above, its logits are not finite."""

    def __init__(self, value: float = NAN) -> None:
        super().__init__()
        self.net, self.value = mlp(), value

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x) * 0 + torch.tensor([9.0, 0, 0], dtype=x.dtype) + x.sum(1, keepdim=True) * 0
        return torch.where(x[:, :1] > 2, self.value, logits)


class Up(Attack):
    """Moves inputs to where logits are not finite."""

    def forward(self, model: Any, x: Tensor, y: Tensor, *, loss_fn: Any) -> Tensor:
        return x + 5


LOADER = Batches(*[(torch.zeros(5, 6, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))] * 2)


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_an_attack_that_breaks_the_logits_has_succeeded(value: float, stage: str) -> None:
    trainer = quiet_trainer()
    run = trainer.validate if stage == "val" else trainer.test
    with pytest.warns(UserWarning, match=f"{stage}: the logits of 10 predictions are not finite"):
        run(AdversarialModule(Breaks(value), val_attack=Up()), LOADER, verbose=False)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert (found[f"{stage}/error"], found[f"{stage}/adv_error"], found[f"{stage}/not_finite"]) == (0, 1, 10)


def test_finite_logits_are_not_named() -> None:
    trainer = quiet_trainer()
    trainer.test(AdversarialModule(mlp(), FGSM(0.1)), LOADER, verbose=False)
    assert "test/not_finite" not in trainer.callback_metrics


def test_a_table_names_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    suite = AttackSuite({"up": Up()})
    module = AdversarialModule(Breaks(), attack=None)
    module.val_attack = None
    quiet_trainer(callbacks=[suite], default_root_dir=tmp_path).test(module, LOADER, verbose=False)
    clean, up = (next(row for row in suite.rows if row["name"] == name) for name in ("clean", "up"))
    assert (clean["error"], up["error"], up["not_finite"]) == (0, 1, 10)
    assert "not_finite" not in clean
    assert up["mistakes_by_class"] == [0, 0, 0]
    assert up["confidence_on_mistakes"] is None
    assert "up: the logits of 10 of 10 examples are not finite" in " ".join(capsys.readouterr().out.split())


def test_counts_of_an_attack() -> None:
    counts = AttackCounts(3)
    logits = torch.tensor([[5.0, 0, 0], [NAN, 0, 0], [0, 5, 0], [INF, 0, 0]])
    wrong = counts.update(logits, torch.zeros(4, dtype=torch.int64), SoftmaxLoss())
    assert wrong.tolist() == [False, True, True, True]
    row = counts.row("mine", None)
    assert (row["error"], row["not_finite"], row["mistakes_by_class"]) == (0.75, 2, [0, 1, 0])
    assert len(not_finite_named([row])) == 1
    assert counts.histogram.compute().sum() == 4


def test_networks_without_a_class_do_not_agree() -> None:
    agreement = Agreement()
    agreement.update(torch.tensor([-1, 1]), torch.tensor([-1, 1]), torch.tensor([0, 0]))
    assert agreement.equal.tolist() == [1, 1, 1]
    assert agreement.total.tolist() == [2, 2, 2]


def test_a_transfer_matrix_counts_them() -> None:
    nets = {"good": AdversarialModule(Breaks(9.0)), "bad": AdversarialModule(Breaks(NAN))}
    comparison = Comparison(nets, Up())
    quiet_trainer().test(comparison, LOADER, verbose=False)
    rows = {(row["crafted_on"], row["judged"]): row for row in comparison.errors}
    assert rows["good", "bad"]["error"] == 1
    assert rows["good", "bad"]["not_finite"] == 10
    assert "not_finite" not in rows["good", "good"]
    assert rows["clean", "bad"]["error"] == 0


def test_rubbish_without_a_number_is_not_refused() -> None:
    rate = RubbishRate(3)
    rate.update(torch.tensor([[NAN, NAN, NAN], [0.4, 0.3, 0.3]]))
    assert rate.compute() == 0.5


def test_a_restart_does_not_replace_a_success() -> None:
    x = torch.cat([LOADER.batches[0][0][:1], LOADER.batches[0][0][:1] + 5])
    assert _is_right(AdversarialModule(Breaks()).eval(), x, torch.zeros(2, dtype=torch.int64)).tolist() == [True, False]


def test_a_picture_says_so() -> None:
    from adv_lightning.evaluation.plots import triptych

    x = torch.full((1, 6), 5.0, dtype=torch.float64)
    ((k, _),) = guess(AdversarialModule(Breaks()), x)
    assert k == -1
    image = torch.zeros(1, 1, 2, 2)
    figure = triptych(image, image, torch.zeros(1), [(0, 1.0)], [(k, NAN)], ["zero", "one", "two"])
    assert any("not finite" in axis.get_title() for axis in figure.axes)


@pytest.mark.filterwarnings("ignore:.*out of reach:UserWarning")
def test_pgd_with_restarts_keeps_it() -> None:
    """A start that breaks the logits is a success, whatever the other starts do."""
    net = Breaks()
    attack = PGD(5.0, steps=1, step_size=1e-3, random_start=True, restarts=4)
    module = AdversarialModule(net, val_attack=attack).eval()
    x = torch.arange(240, dtype=torch.float64).view(40, 6) * 1e-6  # each example draws its own starts
    y = torch.zeros(40, dtype=torch.int64)
    errors = []
    for restarts in (1, 4):
        attack.restarts = restarts
        x_adv = attack(module, x, y, loss_fn=module.loss)
        errors.append(int((predicted_classes(module.loss_fn, module(x_adv)) != y).sum()))
    assert 0 < errors[0] < errors[1]
