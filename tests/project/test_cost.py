"""What a step and an epoch cost, counted; times are measured in benchmarks/."""

from __future__ import annotations

from collections import Counter as Tally
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.metrics.epoch_metrics import EpochMetrics
from adv_lightning.metrics.running_means import RunningMeans
from adv_lightning.models import MaxoutMLP
from tests.support.helpers import Counter, batches, fit, mlp, quiet_trainer


def step_of(module: AdversarialModule, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module.objective(x, y).total.backward()
    optimizer.step()


def test_gradients_are_never_copied() -> None:
    net = mlp(features=61, hidden=67, classes=59)
    size = min(p.numel() for p in net.parameters() if p.dim() == 2) * 8
    x, y = torch.randn(5, 61, dtype=torch.float64), torch.randint(59, (5,))
    module = AdversarialModule(net, attack=FGSM(0.1))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        module.objective(x, y).total.backward()
    made = Tally(event.name for event in profiler.events() if event.self_cpu_memory_usage >= size)
    # Each of the two weights in each of the two backward passes: no copy, no third sum, no multiplication by alpha.
    assert made == {"aten::mm": 4}


@pytest.mark.parametrize("transposed", [False, True])
def test_shared_gradient_is_split(transposed: bool) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
            self.b = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
            self.c = nn.Parameter(torch.zeros((), dtype=torch.float64))
            self.clean = True

        def forward(self, x: Tensor) -> Tensor:
            # Only the clean pass reaches a and b, so that what it kept becomes their gradient as it is.
            weight = self.a + (self.b.T if transposed else self.b)
            weight = weight if self.clean else weight.detach() + 0 * self.c
            self.clean = False
            return x @ weight

    net = Sum()
    x, y = torch.randn(3, 4, dtype=torch.float64), torch.randint(4, (3,))
    AdversarialModule(net, attack=FGSM(0.1)).objective(x, y).total.backward()
    assert net.a.grad is not None
    assert net.b.grad is not None
    before = net.b.grad.clone()
    torch.testing.assert_close(net.a.grad, before.T if transposed else before, rtol=0, atol=0)
    net.a.grad.mul_(2)
    torch.testing.assert_close(net.b.grad, before, rtol=0, atol=0)


def test_refuses_second_derivative() -> None:
    ((x, y),) = batches(1).batches
    net = mlp()
    total = AdversarialModule(net, attack=FGSM(0.1)).objective(x, y).total
    with pytest.raises(RuntimeError, match="replay=False"):
        torch.autograd.grad(total, list(net.parameters()), create_graph=True)


@pytest.mark.parametrize("arguments", [{}, {"crafting": "eval"}, {"alpha": 0.0}])
def test_step_never_synchronises(arguments: dict[str, Any]) -> None:
    # Tensors on the meta device have no values: whatever asked for one would raise.
    net = MaxoutMLP(units=7, pieces=2, input_shape=(1, 4, 4))
    module = AdversarialModule(net, attack=FGSM(0.1), **arguments).to("meta")
    x, y = torch.empty(5, 1, 4, 4, device="meta"), torch.empty(5, dtype=torch.int64, device="meta")
    step_of(module, x, y)
    objective, means = module.objective(x, y), RunningMeans()
    for _ in range(70):
        means.add({"loss": objective.total.detach(), "clean_loss": objective.clean, "adv_loss": objective.adversarial})
    assert {value.device.type for value in means.named("{}").values()} == {"meta"}


def test_counting_never_synchronises() -> None:
    figures = EpochMetrics().to("meta")
    logits, y = torch.empty(5, 3, device="meta"), torch.empty(5, dtype=torch.int64, device="meta")
    loss_fn = AdversarialModule(mlp(), attack=None).loss_fn
    figures.reset()
    figures.add(loss_fn.predict(logits), y, torch.empty((), device="meta"))
    figures.add_attacked(loss_fn.predict(logits), loss_fn.probabilities(logits), y)
    assert figures.error.update_called


def test_calls_log_rarely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), attack=FGSM(0.1))
    calls: Tally[str] = Tally()
    log = AdversarialModule.log

    def counted(self: AdversarialModule, name: str, *args: Any, **kwargs: Any) -> None:
        calls[name] += 1
        log(self, name, *args, **kwargs)

    monkeypatch.setattr(AdversarialModule, "log", counted)
    fit(module, batches(20), logger=CSVLogger(tmp_path), log_every_n_steps=10, precision="64-true")
    assert calls == {f"train/{name}{end}": n for name in ("loss", "clean_loss", "adv_loss") for end, n in END_COUNTS}


END_COUNTS = (("", 2), ("_epoch", 1))


@pytest.mark.parametrize(("attack", "passes"), [(None, (1, 0)), (FGSM(0.1), (2, 1))])
def test_validation_shares_the_clean_pass(attack: FGSM | None, passes: tuple[int, int]) -> None:
    net = mlp()
    counter = Counter(net)
    module = AdversarialModule(net, attack=None, val_attack=attack)
    quiet_trainer(precision="64-true").validate(module, batches(3), verbose=False)
    assert (counter.forward, counter.backward) == (3 * passes[0], 3 * passes[1])


def test_running_mean() -> None:
    module = AdversarialModule(mlp(), attack=FGSM(0.1))
    ((x, y),) = batches(1).batches
    parts, means = [], RunningMeans()
    for _ in range(130):
        step_of(module, x, y)
        objective = module.objective(x, y)
        parts.append(objective.total.detach())
        means.add({"loss": parts[-1]})
    assert len(means._pending["loss"]) < 64  # what waits to be summed does not grow with the epoch
    joined = RunningMeans()
    joined.join(means)
    torch.testing.assert_close(joined.named("{}")["loss"], torch.stack(parts).mean())
