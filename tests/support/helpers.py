"""Small networks, batches, trainers and counters for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM

Batch = tuple[Tensor, Tensor]


class Batches:
    """A loader of ready batches, in order."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def batches(number: int, size: int = 8, features: int = 6, classes: int = 3, seed: int = 0, **kwargs: Any) -> Batches:
    """Draw batches of noise with labels, float64 unless told."""
    generator = torch.Generator().manual_seed(seed)
    kwargs.setdefault("dtype", torch.float64)
    draw = [
        (
            torch.randn(size, features, generator=generator, **kwargs),
            torch.randint(classes, (size,), generator=generator),
        )
        for _ in range(number)
    ]
    return Batches(*draw)


def mlp(features: int = 6, hidden: int = 7, classes: int = 3, seed: int = 0) -> nn.Sequential:
    """A small smooth network in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()


def norm_net() -> nn.Sequential:
    """A network in float64 with dropout and BatchNorm, one of them in eval mode."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3),
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3),
    ).double()  # fmt: skip
    net[5].eval()
    return net


def weights(module: nn.Module) -> Tensor:
    """All parameters, one after the other."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def adversarial(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """FGSM by hand."""
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)
    return x + eps * grad.sign()


def quiet_trainer(**kwargs: Any) -> Trainer:
    """A trainer on the CPU that writes and shows nothing."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return Trainer(**(defaults | kwargs))


def fit(module: LightningModule, train: Any, val: Any = None, **kwargs: Any) -> Trainer:
    """Fit with a quiet trainer, without validation where there is no `val`, and return the trainer."""
    trainer = quiet_trainer(**kwargs) if val is not None else quiet_trainer(limit_val_batches=0, **kwargs)
    trainer.fit(module, train, train if val is None else val)
    return trainer


class Counter:
    """Counts forward passes through a module and backward passes through its output."""

    def __init__(self, module: nn.Module) -> None:
        self.forward = self.backward = 0
        module.register_forward_hook(self._hook)

    def _hook(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        self.forward += 1
        return _CountBackward.apply(output, self)


class _CountBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Counter) -> Tensor:
        ctx.counter = counter
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.counter.backward += 1
        return grad, None


class CountedFGSM(FGSM):
    """Counts its steps and keeps the last result."""

    def step(self, value: Tensor, grad: Tensor | None) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        self.x_adv = super().step(value, grad)
        return self.x_adv


class Snapshot:
    """Everything that an attack must leave as it was: buffers, modes, and each parameter's `.grad`."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: value.clone() for name, value in model.state_dict().items()}
        self.modes = {name: module.training for name, module in model.named_modules()}
        self.tracked = {name: getattr(m, "track_running_stats", None) for name, m in model.named_modules()}
        self.grads = {name: p.grad for name, p in model.named_parameters()}
        self.grad_values = {name: None if g is None else g.clone() for name, g in self.grads.items()}

    def assert_same(self, model: nn.Module) -> None:
        state = model.state_dict()
        assert state.keys() == self.state.keys()
        assert [name for name, value in state.items() if not torch.equal(value, self.state[name])] == []
        assert {name: module.training for name, module in model.named_modules()} == self.modes
        tracked = {name: getattr(m, "track_running_stats", None) for name, m in model.named_modules()}
        assert tracked == self.tracked
        for name, p in model.named_parameters():
            assert p.grad is self.grads[name], name
            assert p.grad is None or torch.equal(p.grad, self.grad_values[name]), name


def two_processes(module: str, folder: Path) -> list[str]:
    """Run `python -m module folder` as two gloo processes, in `folder`; return what each printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forks", module, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        check=False,
    )
    printed = [(folder / f"{rank}.log").read_text(encoding="utf-8") for rank in range(2)]
    assert done.returncode == 0, "\n\n".join(text[-3000:] for text in printed)
    return printed
