"""The seam for training methods: what a method is asked, and what is refused rather than left without effect."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adv_lightning import FGSM, PGD, AdversarialModule, HiddenPerturbation, InputNoise, Method, Mixed, SignNoise
from adv_lightning.methods import InputSite, Learner, Objective, Passes, adversarial_objective
from tests.support.helpers import Batches, batches, fit, mlp

SGD = partial(torch.optim.SGD, lr=0.5)


class HalfAndHalf(Method):
    """A method as a user writes it: half of each loss, the inputs crafted first."""

    def __init__(self, attack: PGD, weight: float = 0.5) -> None:
        super().__init__()
        self.attack = attack
        self.weight = weight

    def loss(self, learner: Learner, x: Tensor, x_adv: Tensor, y: Tensor) -> Objective:
        clean, adversarial = learner.loss(learner(x), y), learner.loss(learner(x_adv), y)
        total = self.weight * clean + (1 - self.weight) * adversarial
        return Objective(total, clean.detach(), adversarial.detach())


class Counting(HalfAndHalf):
    """Acts after each backward pass."""

    calls = 0

    def after_backward(self, learner: Learner) -> None:
        assert all(p.grad is not None for p in learner.parameters())
        self.calls += 1


def weights(module: AdversarialModule) -> list[Tensor]:
    return [p.detach().clone() for p in module.backbone.parameters()]


def trained(**kwargs: Any) -> list[Tensor]:
    module = AdversarialModule(mlp(), optimizer=SGD, **kwargs)
    fit(module, batches(3))
    return weights(module)


# Mixed is the short form


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, step_size=0.04, steps=3, random_start=False), None])
@pytest.mark.parametrize("passes", [{}, {"crafting": "eval"}, {"masks": "shared"}, {"statistics": "clean"}])
def test_the_short_form_is_mixed(attack: Any, passes: dict[str, Any]) -> None:
    short = trained(attack=attack, alpha=0.3, **passes)
    long = trained(method=Mixed(attack, alpha=0.3, **passes))
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True))


def test_the_methods_arguments_are_reached_through_the_module() -> None:
    module = AdversarialModule(mlp(), FGSM(0.1), alpha=0.3, masks="shared")
    assert (module.alpha, module.passes, module.attack.eps) == (0.3, Passes(masks="shared"), 0.1)
    module.alpha, module.attack = 0.7, FGSM(0.2)
    assert (module.method.alpha, module.method.attack.eps) == (0.7, 0.2)
    assert "attack" not in dict(module.named_children())


@pytest.mark.parametrize("given", [{"attack": FGSM(0.1)}, {"alpha": 0.3}, {"crafting": "eval"}, {"masks": "shared"}])
def test_refuses_a_method_beside_its_short_form(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"method=Mixed.*{next(iter(given))}"):
        AdversarialModule(mlp(), method=Mixed(FGSM(0.1)), **given)


def test_refuses_what_is_not_a_method() -> None:
    with pytest.raises(TypeError, match=r"method=FGSM.*Method such as Mixed"):
        AdversarialModule(mlp(), method=FGSM(0.1))  # type: ignore[arg-type]


def test_the_methods_attack_judges_by_default() -> None:
    assert AdversarialModule(mlp(), method=Mixed(FGSM(0.2))).val_attack.eps == 0.2
    assert AdversarialModule(mlp(), method=Mixed(FGSM(0.2)), val_attack=FGSM(0.1)).val_attack.eps == 0.1


# A method of the user's own


def test_an_own_method_equals_its_formula() -> None:
    loader = batches(1)
    attack = PGD(0.1, step_size=0.04, steps=3, random_start=False)
    module = AdversarialModule(mlp(), method=HalfAndHalf(attack, 0.3), optimizer=SGD)
    before = weights(module)
    fit(module, loader)
    net, (x, y) = mlp(), loader.batches[0]
    x_adv = attack(net, x, y, loss_fn=torch.nn.functional.cross_entropy)
    loss = torch.nn.functional.cross_entropy
    grads = torch.autograd.grad(0.3 * loss(net(x), y) + 0.7 * loss(net(x_adv), y), list(net.parameters()))
    for start, found, grad in zip(before, weights(module), grads, strict=True):
        torch.testing.assert_close(found, start - 0.5 * grad, rtol=0, atol=1e-14)


def test_after_backward_runs_once_for_each_backward_pass() -> None:
    method = Counting(PGD(0.1, steps=1))
    fit(AdversarialModule(mlp(), method=method), batches(4), accumulate_grad_batches=2, max_epochs=2)
    assert method.calls == 8


def test_refuses_a_hook_that_keeps_the_method_from_acting() -> None:
    class Forgetful(AdversarialModule):
        def on_after_backward(self) -> None: ...

    fit(Forgetful(mlp(), FGSM(0.1)), batches(3))
    with pytest.raises(ValueError, match=r"Counting.*Forgetful.*super\(\)\.on_after_backward"):
        fit(Forgetful(mlp(), method=Counting(PGD(0.1, steps=1))), batches(3))


@pytest.mark.parametrize(
    "callback",
    [
        lambda: InputNoise(SignNoise(0.1)),
        lambda: HiddenPerturbation(["0"], FGSM(0.1), force=True),
        lambda: HiddenPerturbation(["0"], perturb_input=False),
    ],
)
def test_a_method_without_sites_refuses_callbacks_that_need_them(callback: Any) -> None:
    given = callback()
    module = AdversarialModule(mlp(), method=HalfAndHalf(PGD(0.1, steps=1)))
    with pytest.raises(ValueError, match=f"{type(given).__name__} would do nothing.*HalfAndHalf.*method=Mixed"):
        fit(module, batches(1), callbacks=[given])


def test_a_callback_that_only_measures_suits_every_method() -> None:
    module = AdversarialModule(mlp(), method=HalfAndHalf(PGD(0.1, steps=1)))
    trainer = fit(module, batches(1), batches(1), callbacks=[HiddenPerturbation(["0"])])
    assert trainer.callback_metrics["val/activation/0"] > 0


# An objective of the user's own


class Own(AdversarialModule):
    """Never asks the method."""

    def objective(self, x: Tensor, y: Tensor) -> Objective:
        return Objective(self.loss(self(x), y))


class Doubled(AdversarialModule):
    """Builds on the method's objective."""

    def objective(self, x: Tensor, y: Tensor) -> Objective:
        found = super().objective(x, y)
        return Objective(2 * found.total, found.clean, found.adversarial)


class ByHand(AdversarialModule):
    """Calls the function that the method calls."""

    def objective(self, x: Tensor, y: Tensor) -> Objective:
        assert self.method.sites is not None
        sites = [InputSite(self.attack), *self.method.sites.layers]
        return adversarial_objective(self, x, y, loss_fn=self.loss, sites=sites, alpha=self.alpha, passes=self.passes)


IGNORED = {
    "InputNoise": ({}, [lambda: InputNoise(SignNoise(0.1))]),
    "HiddenPerturbation": ({}, [lambda: HiddenPerturbation(["0"], FGSM(0.1), force=True)]),
    "perturb_input=False": ({}, [lambda: HiddenPerturbation(["0"], perturb_input=False)]),
    "crafting='eval'": ({"crafting": "eval"}, []),
    "masks='shared'": ({"masks": "shared"}, []),
}


@pytest.mark.parametrize("what", IGNORED)
def test_an_objective_that_ignores_something_is_refused(what: str) -> None:
    given, callbacks = IGNORED[what]
    with pytest.raises(ValueError, match=rf"Own\.objective.*super\(\)\.objective.*{what}"):
        fit(Own(mlp(), FGSM(0.1), **given), batches(2), callbacks=[each() for each in callbacks])


def test_an_objective_that_ignores_a_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Own\.objective.*method=HalfAndHalf"):
        fit(Own(mlp(), method=HalfAndHalf(PGD(0.1, steps=1))), batches(2))


@pytest.mark.parametrize("kind", [Doubled, ByHand])
def test_an_objective_that_heeds_everything_trains(kind: type[AdversarialModule]) -> None:
    callbacks = [HiddenPerturbation(["0"], FGSM(0.1), force=True)]
    fit(kind(mlp(), FGSM(0.1), crafting="eval"), batches(2), callbacks=callbacks)


def test_an_own_objective_alone_is_left_alone() -> None:
    fit(Own(mlp(), FGSM(0.1)), batches(2))


def test_labels_are_checked_under_an_own_objective() -> None:
    x, y = batches(1).batches[0]
    for kind in (Own, Doubled, ByHand):
        with pytest.raises(ValueError, match="labels"):
            fit(kind(mlp(), FGSM(0.1)), Batches((x, y + 3)))


def test_an_own_objective_may_take_targets_of_its_own() -> None:
    class Soft(AdversarialModule):
        def objective(self, x: Tensor, y: Tensor) -> Objective:
            return Objective(torch.nn.functional.cross_entropy(self(x), y))

    x, y = batches(1).batches[0]
    fit(Soft(mlp(), FGSM(0.1)), Batches((x, torch.nn.functional.one_hot(y, 3).double())))


def test_an_own_objective_gets_the_scalers_factor() -> None:
    class Scaled(ByHand):
        gradient_scale = torch.tensor(2.0**10, dtype=torch.float64)

    x, y = batches(1).batches[0]
    module, plain = Scaled(mlp(), FGSM(0.1)), ByHand(mlp(), FGSM(0.1))
    seen: list[Tensor] = []
    for each in (module, plain):
        each.backbone.register_forward_hook(lambda layer, args, logits: logits.register_hook(seen.append) and None)
    totals = [each.objective(x, y).total for each in (module, plain)]
    torch.testing.assert_close(seen[0], seen[1] * 2.0**10, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(t, list(m.parameters())) for t, m in zip(totals, (module, plain), strict=True)]
    for scaled, usual in zip(*grads, strict=True):
        torch.testing.assert_close(scaled, usual, rtol=1e-12, atol=1e-15)
