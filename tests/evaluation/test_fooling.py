from __future__ import annotations

from typing import Any

import pytest
import torch
from matplotlib.colors import same_color
from torch import Tensor, nn

from adv_lightning import FGSM, AdversarialModule, Fooling, ScaledGradient
from adv_lightning.evaluation.fooling_images import draws, fooling_step, generate
from adv_lightning.evaluation.plots._common import GREEN
from adv_lightning.evaluation.report_section import Picture
from adv_lightning.losses import LogisticLoss, SigmoidLoss
from tests.support.helpers import Batches, quiet_trainer


def linear(bias: list[float] | None = None) -> AdversarialModule:
    """A linear softmax whose weights, [3, 1, 2, 2], and gradients are known."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -1, 0, 0], [0, 2, -1, 0], [0.5, 0.5, 0.5, -3]]))
        net[1].bias.copy_(torch.tensor(bias or [0.0, 0, 0]))
    return AdversarialModule(net, FGSM(0.3)).eval()


def gradient_by_hand(module: AdversarialModule, z: Tensor, k: int) -> Tensor:
    """dp_k/dx = p_k (w_k - sum_j p_j w_j) of a linear softmax."""
    weight = module.backbone[1].weight.detach().double()
    p = module(z).detach().double().softmax(1)
    return (p[:, k, None] * (weight[k] - p @ weight)).view_as(z)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_step_follows_the_gradient_of_the_probability(k: int) -> None:
    module, z = linear(), draws(20, torch.Size([1, 2, 2]), 0)
    grad = gradient_by_hand(module, z, k)
    torch.testing.assert_close(fooling_step(module, z, k, 0.3), z + 0.3 * grad.sign().float())
    torch.testing.assert_close(fooling_step(module, z, k, 7.0, "gradient"), z + 7 * grad.float())


def test_sign_is_right_if_the_probability_underflows() -> None:
    module, z = linear([0.0, 0, 500]), draws(20, torch.Size([1, 2, 2]), 0)
    assert (module(z).softmax(1)[:, 0] == 0).all()
    difference = module.backbone[1].weight[0] - module.backbone[1].weight[2]
    torch.testing.assert_close(fooling_step(module, z, 0, 0.3), z + 0.3 * difference.sign().view(1, 1, 2, 2))


@pytest.mark.parametrize("loss_fn", [SigmoidLoss(), LogisticLoss()])
def test_uses_the_losss_probability(loss_fn: Any) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1 if isinstance(loss_fn, LogisticLoss) else 3))
    module, z = AdversarialModule(net, None, loss_fn=loss_fn).eval(), draws(5, torch.Size([1, 2, 2]), 0)
    weight = net[1].weight.detach()
    towards = weight[0] if isinstance(loss_fn, LogisticLoss) else weight[1]
    torch.testing.assert_close(fooling_step(module, z, 1, 0.3), z + 0.3 * towards.sign().view(1, 1, 2, 2))


def evaluated(fooling: Fooling, module: AdversarialModule) -> tuple[dict[str, Any], Any]:
    data = Batches((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])))
    trainer = quiet_trainer(callbacks=[fooling])
    trainer.test(module, data, verbose=False)
    assert fooling.section is not None
    return fooling.section.record["fooling"], trainer


def test_counts_successes_by_class() -> None:
    module, fooling = linear(), Fooling(samples=150, gradient_eps=3)
    found, trainer = evaluated(fooling, module)
    for k in range(3):
        z = torch.cat([draws(100, torch.Size([1, 2, 2]), k, 0), draws(50, torch.Size([1, 2, 2]), k, 1)])
        grad = gradient_by_hand(module, z, k).float()
        for name, x in (("sign", z + 0.3 * grad.sign()), ("gradient", z + 3 * grad)):
            hits = (module(x).softmax(1)[:, k] >= 0.5).float().mean().item()
            assert found[name]["success"][k] == pytest.approx(hits)
            assert 0 < hits < 1
    assert found["sign"]["mean"] == pytest.approx(sum(found["sign"]["success"]) / 3)
    for figures in (found["sign"], found["gradient"]):
        for success, (low, high) in zip(figures["success"], figures["interval"], strict=True):
            assert low < success < high
    assert trainer.callback_metrics["test/fooling_sign"].item() == pytest.approx(found["sign"]["mean"])
    assert (found["sign"]["eps"], found["gradient"]["eps"], found["n"]) == (0.3, 3, 150)


def test_counts_draws_until_success() -> None:
    module = linear([0.0, 0, 4])  # classes 0 and 1 are rare
    found, _ = evaluated(Fooling(samples=10), module)
    for k, number in enumerate(found["draws_until_success"]):
        one = generate(module, k, torch.zeros(1, 1, 2, 2), 0.3)
        assert (one.draws, one.succeeded) == (number, True)
        assert module(one.image).softmax(1)[0, k] >= 0.5
        x = fooling_step(module, draws(100, torch.Size([1, 2, 2]), k, 0, 0)[: number - 1], k, 0.3)
        assert (module(x).softmax(1)[:, k] < 0.5).all()
    assert max(found["draws_until_success"]) > 1


def test_gives_up_after_max_draws() -> None:
    module = linear([0.0, 0, 1e4])
    one = generate(module, 0, torch.zeros(1, 1, 2, 2), 0.3, max_draws=150)
    assert (one.draws, one.succeeded) == (150, False)
    found, _ = evaluated(Fooling(samples=10, max_draws=150), module)
    assert found["draws_until_success"] == [None, None, 1]


def test_pictures_frame_successes() -> None:
    fooling = Fooling(samples=10)
    evaluated(fooling, linear())
    assert fooling.section is not None
    one_of_each, hardest = fooling.section.pictures
    assert (one_of_each.name, hardest.name) == ("fooling images", "fooling images of the hardest class")
    found = fooling.section.record["fooling"]
    succeeded = sum(number is not None for number in found["draws_until_success"])
    assert frames(one_of_each) == succeeded
    k = found["sign"]["success"].index(min(found["sign"]["success"]))
    module = linear()
    x = fooling_step(module, draws(25, torch.Size([1, 2, 2]), k, 0), k, 0.3)
    assert frames(hardest) == int((module(x).softmax(1)[:, k] >= 0.5).sum()) > 0


def frames(picture: Picture) -> int:
    """The number of green frames."""
    edges = [patch.get_edgecolor() for axis in picture.draw().axes for patch in axis.patches]
    return sum(same_color(edge, GREEN) for edge in edges)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"samples": 0}, "samples=0"),
        ({"max_draws": 0}, "max_draws=0"),
        ({"threshold": -0.1}, "threshold=-0.1"),
        ({"eps": "a"}, "eps='a'"),
        ({"gradient_eps": -1}, "gradient_eps=-1"),
    ],
)
def test_refuses_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Fooling(**arguments)


def test_without_eps_a_note_says_that_it_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    fooling = Fooling()
    module = AdversarialModule(linear().backbone, ScaledGradient(1.0))
    data = Batches((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])))
    quiet_trainer(callbacks=[fooling]).test(module, data, verbose=False)
    assert fooling.section is not None
    assert "callbacks.fooling.eps" in fooling.section.notes[0]
    assert "Fooling is left out" in capsys.readouterr().out
    assert fooling.section.record == {}
