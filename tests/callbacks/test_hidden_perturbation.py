from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from adv_lightning import FGSM, AdversarialModule
from adv_lightning.attacks import PGD, Rotation, SignNoise, SingleStepAttack
from adv_lightning.callbacks import HiddenPerturbation, InputNoise
from adv_lightning.models import MaxoutMLP
from tests.methods.test_perturbation_sites import closed_form, linear
from tests.support.helpers import Batches, Counter, batches, fit, quiet_trainer
from tests.support.interrupted import broken_off, weights, whole_and_resumed

SGD = partial(torch.optim.SGD, lr=1.0)


def module_of(net: nn.Module, attack: Any = None, **kwargs: Any) -> AdversarialModule:
    return AdversarialModule(net, attack, optimizer=SGD, **kwargs)


def moved(net: nn.Module, run: Any) -> dict[str, np.ndarray]:
    """Run one step of size 1, and return what it subtracted from each parameter."""
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    run()
    return {name: (start[name] - p.detach()).numpy() for name, p in net.named_parameters()}


# Training


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("perturb_input", [True, False])
@pytest.mark.parametrize("crafting", ["train", "eval"])
def test_step_equals_its_closed_form(alpha: float, relative: bool, perturb_input: bool, crafting: Any) -> None:
    net, loader = linear(6, 5, 3), batches(1)
    callback = HiddenPerturbation(["0"], FGSM(0.2), relative=relative, perturb_input=perturb_input, force=True)
    expected = closed_form(net, loader.batches[0], alpha, [0.1 if perturb_input else 0.0, 0.2], relative)
    module = module_of(net, FGSM(0.1), alpha=alpha, crafting=crafting)
    found = moved(net, lambda: fit(module, loader, callbacks=[callback]))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12)


def test_several_layers_and_accumulation() -> None:
    net, loader = linear(6, 5, 4, 3), batches(2)
    counter = Counter(net[2])
    each = [closed_form(net, batch, 0.5, [0.1, 0.4, 0.4]) for batch in loader]
    callback = HiddenPerturbation(["0", "1"], FGSM(0.4), force=True)
    module = module_of(net, FGSM(0.1))
    found = moved(net, lambda: fit(module, loader, callbacks=[callback], accumulate_grad_batches=2))
    for name, value in found.items():
        np.testing.assert_allclose(value, (each[0][name] + each[1][name]) / 2, rtol=0, atol=1e-12)
    assert (counter.forward, counter.backward) == (4, 4)


def test_two_callbacks() -> None:
    net, loader = linear(6, 5, 4, 3), batches(1)
    expected = closed_form(net, loader.batches[0], 0.5, [0.0, 0.4, 0.3])
    module = module_of(net, FGSM(0.1))
    before = list(module.method.sites.layers)
    callbacks = [
        HiddenPerturbation(["0"], FGSM(0.4), perturb_input=False),
        HiddenPerturbation(["1"], FGSM(0.3), perturb_input=False, force=True),
    ]
    found = moved(net, lambda: fit(module, loader, callbacks=callbacks))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12)
    assert module.method.sites.layers == before


def test_beside_a_multi_step_attack() -> None:
    net, (batch,) = linear(6, 5, 3), batches(1)
    attack = PGD(0.1, steps=3, step_size=0.1, random_start=False)
    x_adv = attack(net, *batch, loss_fn=F.cross_entropy)
    w1, w2 = (layer.weight for layer in net)
    h = batch[0] @ w1.T
    clean = F.cross_entropy(h @ w2.T, batch[1])
    (g,) = torch.autograd.grad(clean, h, retain_graph=True)
    total = 0.5 * clean + 0.5 * F.cross_entropy((x_adv @ w1.T + 0.2 * g.sign()) @ w2.T, batch[1])
    expected = torch.autograd.grad(total, [w1, w2])
    callback = HiddenPerturbation(["0"], FGSM(0.2), force=True)
    found = moved(net, lambda: fit(module_of(net, attack), Batches(batch), callbacks=[callback]))
    for value, grad in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(value, grad.numpy(), rtol=0, atol=1e-12)


def test_without_a_rule_training_does_not_change() -> None:
    found = []
    for callbacks in ([], [HiddenPerturbation(["0"])]):
        net = linear(6, 5, 3)
        fit(module_of(net, FGSM(0.1)), batches(3), batches(1, seed=1), callbacks=callbacks)
        found.append(weights(net))
    assert torch.equal(*found)


@pytest.mark.parametrize("rule", [FGSM(0.1), Rotation(0.1)], ids=["FGSM", "Rotation"])
def test_bf16_mixed_perturbs_and_trains(rule: SingleStepAttack) -> None:
    def run(precision: Any, *callbacks: Callback) -> Tensor:
        net = linear(6, 32, 32, 3).float()
        module = AdversarialModule(net, FGSM(0.1), optimizer=partial(torch.optim.SGD, lr=0.5))
        loader = batches(8, dtype=torch.float32)
        fit(module, loader, batches(2, seed=1, dtype=torch.float32), precision=precision, callbacks=list(callbacks))
        return weights(net)

    full, half = (run(p, HiddenPerturbation(["0"], rule, relative=True)) for p in ("32-true", "bf16-mixed"))
    without = run("bf16-mixed")
    assert half.isfinite().all()
    assert (half - full).norm() < 0.3 * (half - without).norm()


def test_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    def build() -> tuple[AdversarialModule, list[Callback]]:
        torch.manual_seed(0)
        net = MaxoutMLP(input_shape=(1, 8, 8), units=8, pieces=2, input_dropout=0, dropout=0)
        return module_of(net, FGSM(0.1)), [HiddenPerturbation(["net.maxout1"], FGSM(0.2))]

    whole, *resumed = whole_and_resumed(build, tmp_path)
    assert all(torch.equal(each, whole) for each in resumed)


# Refusals


def maxout() -> MaxoutMLP:
    torch.manual_seed(0)
    return MaxoutMLP(num_classes=3, input_shape=(1, 2, 3), units=4, pieces=2)


def images(number: int = 2) -> Batches:
    return Batches(*((x.view(8, 1, 2, 3), y) for x, y in batches(number, dtype=torch.float32)))


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3),
    )  # fmt: skip


LAST = [(maxout, "net.maxout2"), (maxout, "net.dropout2"), (maxout, "net.linear"), (maxout, "net")]
LAST += [(convnet, str(i)) for i in range(3, 10)]


@pytest.mark.parametrize(("build", "layer"), LAST)
def test_refuses_the_last_hidden_layer_before_any_step(build: Any, layer: str) -> None:
    module = module_of(build(), FGSM(0.1))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=rf"layers has '{layer}'.* last hidden layer.*force=true"):
        fit(module, images(), callbacks=[HiddenPerturbation([layer], FGSM(0.1))])
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.training
    fit(module, images(), callbacks=[HiddenPerturbation([layer], FGSM(0.1), force=True)])
    assert any(not torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("build", "layer"),
    [(maxout, "net.input_dropout"), (maxout, "net.maxout1"), (maxout, "net.dropout1"), (convnet, "0"), (convnet, "2")],
)
def test_perturbs_layers_below_the_last(build: Any, layer: str) -> None:
    trained = []
    for callbacks in ([], [HiddenPerturbation([layer], FGSM(0.5))]):
        module = module_of(build(), FGSM(0.1))
        torch.manual_seed(1)
        fit(module, images(), callbacks=callbacks)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
        trained.append(weights(module))
    assert not torch.equal(*trained)


def test_counts_a_head_beside_the_backbone() -> None:
    class Headed(AdversarialModule):
        def __init__(self) -> None:
            super().__init__(linear(6, 5, 4), FGSM(0.1), optimizer=SGD)
            self.head = nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x))

    with pytest.raises(ValueError, match=r"'1'.* last hidden layer.*'head'"):
        fit(Headed(), batches(1), callbacks=[HiddenPerturbation(["1"], FGSM(0.1))])
    fit(Headed(), batches(1), callbacks=[HiddenPerturbation(["0"], FGSM(0.1))])


def test_warns_about_a_layer_that_does_not_run_in_eval_mode() -> None:
    class Sleepy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.layer = linear(6, 6, 3), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.layer(x) if self.training else x)

    with pytest.warns(UserWarning, match=r"'layer'.*eval mode"):
        fit(module_of(Sleepy(), FGSM(0.1)), batches(1), callbacks=[HiddenPerturbation(["layer"], FGSM(0.1))])


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([], "list of dotted names"),
        ("net", "list of dotted names"),
        (None, "list of dotted names"),
        (["0", "0"], "once"),
    ],
)
def test_refuses_bad_lists_of_layers(layers: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HiddenPerturbation(layers, FGSM(0.1))


@pytest.mark.parametrize("rule", ["FGSM", PGD(0.1)])
def test_refuses_other_rules(rule: Any) -> None:
    with pytest.raises(TypeError, match=r"rule=.*single-step"):
        HiddenPerturbation(["0"], rule)


@pytest.mark.parametrize("name", ["net.maxout3", "maxout1", ""])
def test_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=rf"layers has '{name}'.*: .* net, net\.flatten, .*net\.linear$"):
        HiddenPerturbation([name]).check(module_of(maxout()))


@pytest.mark.parametrize("rule", [FGSM(0.1), None], ids=["FGSM", "log"])
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_refuses_an_unknown_name_in_every_stage(rule: Any, stage: str) -> None:
    trainer = quiet_trainer(callbacks=[HiddenPerturbation(["maxout1"], rule)])
    with pytest.raises(ValueError, match="layers has 'maxout1'"):
        getattr(trainer, stage)(module_of(maxout(), FGSM(0.1)), images(), *([images()] if stage == "fit" else []))


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, linear(5, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))


def compiled_in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    return net


@pytest.mark.parametrize(
    ("build", "layer", "where"),
    [
        (lambda: compiled_in_place(linear(6, 5, 5, 3)), "0", "the backbone"),
        (lambda: torch.compile(linear(6, 5, 5, 3), backend="eager"), "0", "the backbone"),
        (lambda: torch.compile(linear(6, 5, 5, 3), backend="eager"), "_orig_mod.0", "the backbone"),
        (lambda: Around(compiled_in_place(linear(6, 5, 5))), "inner.0", "inner"),
        (lambda: Around(compiled_in_place(linear(6, 5, 5))), "inner", "inner"),
        (lambda: Around(torch.compile(linear(6, 5, 5), backend="eager")), "inner._orig_mod.0", "inner"),
    ],
)
def test_refuses_a_layer_inside_a_compiled_module(build: Any, layer: str, where: str) -> None:
    with pytest.raises(ValueError, match=f"{where} is compiled.*model.compiled=false"):
        HiddenPerturbation([layer]).check(module_of(build()))


@pytest.mark.parametrize("rule", [FGSM(0.1), None], ids=["FGSM", "log"])
def test_refuses_a_compiled_backbone_before_training(rule: Any) -> None:
    with pytest.raises(ValueError, match="the backbone is compiled"):
        fit(module_of(linear(6, 5, 3), compiled=True), batches(1), callbacks=[HiddenPerturbation(["0"], rule)])


def test_perturbs_layers_beside_and_around_a_compiled_one() -> None:
    found = []
    for inner in (linear(6, 5, 5), compiled_in_place(linear(6, 5, 5))):
        torch.manual_seed(0)
        net = nn.Sequential(Around(inner), nn.Linear(3, 3), nn.Linear(3, 3)).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(module_of(net, FGSM(0.1)), batches(2), callbacks=[HiddenPerturbation(["0", "0.head.0"], FGSM(0.3))])
        found.append(weights(net))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise_first", [True, False])
def test_refuses_noise_at_an_unperturbed_input(noise_first: bool) -> None:
    module = module_of(linear(6, 5, 4, 3), FGSM(0.1))
    callbacks = [InputNoise(SignNoise(0.1)), HiddenPerturbation(["0"], FGSM(0.1), perturb_input=False)]
    with pytest.raises(ValueError, match=r"perturb_input=False.*SignNoise.*callbacks\.noise=null"):
        fit(module, batches(1), callbacks=callbacks if noise_first else callbacks[::-1])
    assert module.method.sites.layers == []
    assert module.method.sites.input_rule is None


# The module afterwards


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
@pytest.mark.parametrize("perturb_input", [True, False])
def test_module_is_restored_and_fits_again(error: Any, perturb_input: bool) -> None:
    net = linear(6, 5, 4, 3)
    module = module_of(net, FGSM(0.1))
    sites = list(module.method.sites.layers)
    callback = HiddenPerturbation(["0"], FGSM(0.4), perturb_input=perturb_input)
    if error is None:
        fit(module, batches(3), batches(1), callbacks=[callback])
    else:
        broken_off(module, batches(3), error, callback)
    assert module.method.sites.layers == sites
    assert module.method.sites.input_rule is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    batch = batches(1, seed=5)
    for eps, again in (([0.1, 0.0, 0.0], []), ([0.1 if perturb_input else 0.0, 0.4, 0.0], [callback])):
        expected = closed_form(net, batch.batches[0], 0.5, eps)
        found = moved(net, lambda again=again: fit(module, batch, callbacks=again))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-12)


# Logging


def digits_like(number: int) -> Batches:
    return batches(number, size=7, seed=3)


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"val_attack": PGD(0.1, steps=2)}, {"attack": None}, {"val_attack_samples": 9}],
    ids=["FGSM", "PGD", "unattacked", "a part"],
)
def test_logs_the_mean_absolute_output_on_clean_examples(stage: str, kwargs: dict[str, Any]) -> None:
    loader = digits_like(3)
    net = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    figures = []
    for callbacks in ([], [HiddenPerturbation(["0", "2", "3"], Rotation(0.1), force=True)]):
        module = AdversarialModule(net, **({"attack": FGSM(0.5)} | kwargs), optimizer=partial(torch.optim.SGD, lr=0.0))
        trainer = quiet_trainer(callbacks=callbacks, max_epochs=2)
        if stage == "fit":
            trainer.fit(module, digits_like(2), loader)
        else:
            getattr(trainer, stage)(module, loader, verbose=False)
        prefix = "test" if stage == "test" else "val"
        figures.append({k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(prefix)})
    without, found = figures
    net.eval()
    values = net[0](torch.cat([x for x, _ in loader])).detach()
    for name, value in (("0", values), ("2", values.tanh()), ("3", net[3](values.tanh()))):
        assert found.pop(f"{prefix}/activation/{name}") == pytest.approx(value.abs().mean().item(), abs=1e-7)
    assert found == without
    assert not any(m._forward_hooks for m in module.modules())


def test_without_a_rule_logs_the_last_layer_and_one_that_runs_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    net, loader = Twice().double(), digits_like(2)
    (found,) = quiet_trainer(callbacks=[HiddenPerturbation(["layer"])]).validate(
        module_of(net, FGSM(0.1)), Batches(*((x, y) for x, y in loader)), verbose=False
    )
    x = torch.cat([x for x, _ in loader])
    expected = torch.cat([net.layer(x), net(x)]).abs().mean().item()
    assert found["val/activation/layer"] == pytest.approx(expected, abs=1e-7)


def test_refuses_to_measure_other_outputs() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair, self.head = Pair(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pair(x)[0])

    net = Net().double()
    with pytest.raises(ValueError, match=r"'pair'.*tuple"):
        quiet_trainer(callbacks=[HiddenPerturbation(["pair"])]).validate(module_of(net, FGSM(0.1)), digits_like(1))
    assert not net.pair._forward_hooks
