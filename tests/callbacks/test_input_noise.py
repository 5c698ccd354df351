from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule, InputNoise, Noise, SignNoise, UniformNoise
from adv_lightning.attacks import GaussianNoise
from adv_lightning.data.seeding import mix_seed
from adv_lightning.models import MaxoutMLP
from tests.support.helpers import Batches, Counter, batches, fit, mlp, quiet_trainer
from tests.support.interrupted import broken_off, weights, whole_and_resumed

SGD = partial(torch.optim.SGD, lr=0.5)
NOISES = [SignNoise(0.3), UniformNoise(0.3), GaussianNoise(0.3)]
noises = pytest.mark.parametrize("noise", NOISES, ids=["sign", "uniform", "gaussian"])


class Seen(Callback):
    """Keeps the inputs of every training pass."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.backbone.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, args: Any) -> None:
        if module.training:
            self.inputs.append(args[0].detach().clone())


def replayed(noise: Noise, x: Tensor, epoch: int, batch: int, seed: int = 0, rank: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch, rank, batch, 1))
    return x + noise.draw(x, generator)


# What it trains on


@noises
@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("crafting", ["train", "eval"])
@pytest.mark.parametrize("attack", [FGSM(0.1), None], ids=["FGSM", "none"])
def test_steps_equal_their_closed_form(noise: Noise, alpha: float, crafting: Any, attack: Any) -> None:
    net, loader = mlp(), batches(4)
    counter = Counter(net[0])
    module = AdversarialModule(net, attack, alpha=alpha, crafting=crafting, optimizer=SGD)
    fit(module, loader, max_epochs=2, callbacks=[InputNoise(noise)])
    passes = 8 if alpha == 0 else 16
    assert (counter.forward, counter.backward) == (passes, passes)

    twin = mlp()
    optimizer = SGD(twin.parameters())
    for epoch in range(2):
        for i, (x, y) in enumerate(loader):
            optimizer.zero_grad()
            noisy = F.cross_entropy(twin(replayed(noise, x, epoch, i)), y)
            (alpha * F.cross_entropy(twin(x), y) + (1 - alpha) * noisy).backward()
            optimizer.step()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-13)


def test_accumulated_steps_equal_their_closed_form() -> None:
    net, loader = mlp(), batches(4)
    module = AdversarialModule(net, FGSM(0.1), optimizer=SGD)
    fit(module, loader, callbacks=[InputNoise(NOISES[0])], accumulate_grad_batches=2)
    twin = mlp()
    optimizer = SGD(twin.parameters())
    for i, (x, y) in enumerate(loader):
        loss = F.cross_entropy(twin(x), y) + F.cross_entropy(twin(replayed(NOISES[0], x, 0, i)), y)
        (loss / 4).backward()
        if i % 2 == 1:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(weights(net), weights(twin), rtol=0, atol=1e-13)


@noises
def test_draws_anew_from_the_right_distribution(noise: Noise) -> None:
    loader = Batches(*((torch.zeros(8, 500, dtype=torch.float64), y) for _, y in batches(3)))
    seen = Seen()
    module = AdversarialModule(mlp(features=500), FGSM(0.1), alpha=0.0, optimizer=SGD)
    fit(module, loader, max_epochs=2, callbacks=[InputNoise(noise), seen])
    draws = torch.stack(seen.inputs)
    assert draws.shape == (6, 8, 500)
    rows = draws.flatten(0, 1)
    correlation = np.corrcoef(rows.numpy()) - np.eye(48)
    assert np.abs(correlation).max() < 5 / 500**0.5  # no two examples, batches or epochs share their draws
    deviation = {"SignNoise": 0.3, "UniformNoise": 0.3 / 3**0.5, "GaussianNoise": 0.3}[type(noise).__name__]
    assert abs(rows.mean()) < 5 * deviation / rows.numel() ** 0.5
    assert rows.std().item() == pytest.approx(deviation, rel=0.02)
    if isinstance(noise, SignNoise):
        assert rows.unique().tolist() == pytest.approx([-0.3, 0.3])
    if isinstance(noise, UniformNoise):
        assert 0.299 < rows.abs().max() <= 0.3
    if isinstance(noise, GaussianNoise):
        assert (rows.abs() < 0.3).double().mean().item() == pytest.approx(0.6827, abs=0.01)


def test_seed_sets_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seed in ("1", "1", "2"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        seen = Seen()
        fit(AdversarialModule(mlp(), None, alpha=0.0), batches(2), callbacks=[InputNoise(SignNoise(1.0)), seen])
        found.append(torch.stack(seen.inputs))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    x = batches(2).batches[1][0]
    assert torch.equal(found[2][1], replayed(SignNoise(1.0), x, 0, 1, seed=2))


def test_leaves_global_generators_and_batches_alone() -> None:
    loader = batches(3)
    before = [x.clone() for x, _ in loader]
    torch.manual_seed(4)
    state = torch.get_rng_state()
    fit(AdversarialModule(mlp(), FGSM(0.1)), loader, callbacks=[])
    torch.manual_seed(4)
    net = mlp()
    torch.set_rng_state(state)
    fit(AdversarialModule(net, FGSM(0.1)), loader, callbacks=[InputNoise(GaussianNoise(0.3), 2)])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, old) for (x, _), old in zip(loader, before, strict=True))


def test_no_noise_in_validation_and_test() -> None:
    loader, net = batches(3, seed=2), mlp()
    figures = []
    for callbacks in ([InputNoise(SignNoise(5.0))], []):
        module = AdversarialModule(net, FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=0.0))
        trainer = fit(module, batches(2), loader, callbacks=callbacks)
        found = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        for stage in ("validate", "test"):
            (row,) = getattr(quiet_trainer(callbacks=callbacks), stage)(module, loader, verbose=False)
            found |= {f"{stage} {name}": value for name, value in row.items()}
        figures.append(found)
    assert figures[0] == figures[1]
    assert "val/adv_error" in figures[0]


def test_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    def build() -> tuple[AdversarialModule, list[Callback]]:
        torch.manual_seed(0)
        net = MaxoutMLP(input_shape=(1, 8, 8), units=8, pieces=2, input_dropout=0, dropout=0)
        return AdversarialModule(net, FGSM(0.1), optimizer=SGD), [InputNoise(SignNoise(0.25), 2)]

    whole, *resumed = whole_and_resumed(build, tmp_path)
    assert all(torch.equal(each, whole) for each in resumed)


def test_bf16_mixed_uses_the_same_noise() -> None:
    found = []
    for precision in ("32-true", "bf16-mixed"):
        seen = Seen()
        module = AdversarialModule(mlp().float(), FGSM(0.1), optimizer=SGD)
        loader = batches(6, dtype=torch.float32)
        fit(module, loader, callbacks=[InputNoise(SignNoise(0.3), 1), seen], precision=precision)
        found.append((torch.stack(seen.inputs), weights(module)))
    (inputs, full), (half_inputs, half) = found
    assert torch.equal(inputs, half_inputs)
    start = weights(mlp().float())
    assert 0 < (full - half).norm() < 0.1 * (full - start).norm()


# The comparison with FGSM


class Recorded(CSVLogger):
    """Keeps the rows of the comparison that are logged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append({name: value for name, value in metrics.items() if name.startswith("noise/")})


@noises
@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0)])
def test_comparison_on_a_linear_model(noise: Noise, bounds: Any, tmp_path: Path) -> None:
    kwargs = {"std": noise.std} if isinstance(noise, GaussianNoise) else {"eps": noise.eps}
    noise = type(noise)(**kwargs, bounds=bounds)
    loader = batches(5, size=8)
    loader.batches[-1][0].resize_(5, 6), loader.batches[-1][1].resize_(5)  # the last batch is smaller
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).double()
    module = AdversarialModule(net, FGSM(0.7), optimizer=partial(torch.optim.SGD, lr=0.0))
    logger = Recorded(tmp_path)
    fit(module, loader, callbacks=[InputNoise(noise, 2)], logger=logger, log_every_n_steps=4)

    w, b = (p.detach().numpy() for p in net.parameters())

    def loss(x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e = np.exp(x @ w.T + b)
        p = e / e.sum(1, keepdims=True)
        return -np.log((p * t).sum(1)), (p - t) @ w

    def clipped(x: np.ndarray) -> np.ndarray:
        return x if bounds is None else np.clip(x, *bounds)

    sums, count = np.zeros(5), 0
    for i in (0, 2, 4):
        x, y = loader.batches[i]
        noisy = clipped(replayed(noise, x, 0, i).numpy())
        x, t = x.numpy(), F.one_hot(y, 3).numpy()
        clean, g = loss(x, t)
        fgsm = clipped(x + 0.3 * np.sign(g))
        if bounds is None:
            assert ((fgsm - x) * g).sum() == pytest.approx(0.3 * np.abs(g).sum())
        figures = clean, loss(noisy, t)[0], loss(fgsm, t)[0], ((noisy - x) * g).sum(1), ((fgsm - x) * g).sum(1)
        sums, count = sums + [each.sum() for each in figures], count + len(x)
    names = ["clean_loss", "loss", "fgsm_loss", "dot", "fgsm_dot"]
    (row,) = [row for row in logger.rows if row]
    assert row == pytest.approx({f"noise/{name}": s / count for name, s in zip(names, sums, strict=True)}, abs=1e-6)


def test_comparison_does_not_change_training() -> None:
    found = []
    for every in (None, 1, 3):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()
        module = AdversarialModule(net, FGSM(0.1), optimizer=SGD)
        torch.manual_seed(1)
        noise = InputNoise(SignNoise(0.3), every)
        fit(module, batches(7), max_epochs=2, callbacks=[noise], accumulate_grad_batches=2)
        found.append({name: value.clone() for name, value in module.state_dict().items()})
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


# Refusals, and the module afterwards


class Sizeless(Noise):
    def draw(self, value: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.zeros_like(value)


def test_refuses_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"FGSM.*SignNoise"):
        InputNoise(FGSM(0.1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compare_every_n_steps=0"):
        InputNoise(SignNoise(0.1), 0)
    with pytest.raises(ValueError, match=r"Sizeless.*eps.*std.*compare_every_n_steps"):
        InputNoise(Sizeless(), 5)
    InputNoise(Sizeless())


def test_refuses_another_input_rule() -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    module.method.sites.input_rule = rule = FGSM(0.2)
    with pytest.raises(ValueError, match=r"InputNoise.*FGSM\(eps=0\.2"):
        fit(module, batches(1), callbacks=[InputNoise(SignNoise(0.1))])
    assert module.method.sites.input_rule is rule
    module.method.sites.input_rule = None
    with pytest.raises(ValueError, match=r"InputNoise.* input .*SignNoise"):
        fit(module, batches(1), callbacks=[InputNoise(SignNoise(0.1)), InputNoise(UniformNoise(0.1))])
    assert module.method.sites.input_rule is None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
def test_module_is_restored_and_fits_again(error: Any) -> None:
    net = mlp()
    module = AdversarialModule(net, FGSM(0.1), optimizer=SGD)
    callback = InputNoise(SignNoise(0.3))
    if error is None:
        fit(module, batches(3), batches(1), callbacks=[callback])
    else:
        broken_off(module, batches(3), error, callback)
    assert module.method.sites.input_rule is None
    assert callback.noise.generator is None
    twin = mlp()
    twin.load_state_dict(net.state_dict())
    fit(module, batches(2), callbacks=[callback])
    fit(AdversarialModule(twin, FGSM(0.1), optimizer=SGD), batches(2), callbacks=[InputNoise(SignNoise(0.3))])
    assert torch.equal(weights(net), weights(twin))
