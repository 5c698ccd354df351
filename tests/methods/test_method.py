"""The seam for training methods: what a method is asked, and what is refused rather than left without effect."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
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


def test_plain_training_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(AdversarialModule(mlp()), batches(2))
    assert caplog.text.count("training is plain") == 1
    caplog.clear()
    with caplog.at_level("INFO"):
        fit(AdversarialModule(mlp(), val_attack=FGSM(0.1)), batches(1))
    assert "training is plain" not in caplog.text


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


def test_a_failed_fit_blames_nobody_later() -> None:
    class Unlucky(AdversarialModule):
        bad = True

        def penalty(self) -> None:
            if self.bad:
                raise RuntimeError("out of memory")

    module = Unlucky(mlp(), method=Counting(PGD(0.1, steps=1)))
    with pytest.raises(RuntimeError, match="memory"):
        fit(module, batches(2))
    module.bad = False
    fit(module, batches(2))
    assert module.method.calls == 2


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


# What callbacks ask for is used, or refused


class Ignorant(Mixed):
    """Has sites, and never looks at them."""

    def objective(self, learner: Learner, x: Tensor, y: Tensor) -> Objective:
        return Objective(learner.loss(learner(x), y), None, torch.zeros(()))


@pytest.mark.parametrize("callback", [InputNoise(SignNoise(0.1)), HiddenPerturbation(["0"], FGSM(0.1), force=True)])
def test_a_method_that_ignores_its_sites_is_refused(callback: Any) -> None:
    with pytest.raises(ValueError, match=f"Ignorant ignores.*{type(callback).__name__}"):
        fit(AdversarialModule(mlp(), method=Ignorant(FGSM(0.1))), batches(1), callbacks=[callback])


def test_a_subclass_of_mixed_may_craft_and_compute_otherwise() -> None:
    class Twice(Mixed):
        def craft(self, learner: Learner, x: Tensor, y: Tensor) -> Tensor:
            return super().craft(learner, x, y) + 1

    class Louder(Mixed):
        def loss(self, learner: Learner, x: Tensor, x_adv: Tensor, y: Tensor) -> Objective:
            found = super().loss(learner, x, x_adv, y)
            return Objective(7 * found.total, found.clean, found.adversarial)

    x, y = batches(1).batches[0]
    usual, twice, louder = (
        AdversarialModule(mlp(), method=kind(FGSM(0.1))).objective(x, y) for kind in (Mixed, Twice, Louder)
    )
    assert twice.adversarial != usual.adversarial
    torch.testing.assert_close(louder.total, 7 * usual.total)


def test_a_method_that_is_replaced_keeps_what_callbacks_asked() -> None:
    class Swap(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                pl_module.method = Mixed(FGSM(0.2), alpha=0.3)
                assert pl_module.method.sites.layers

    module = AdversarialModule(mlp(), FGSM(0.1))
    fit(module, batches(1), callbacks=[HiddenPerturbation(["0"], FGSM(0.1), force=True), Swap()], max_epochs=2)
    assert not module.method.sites.changed


@pytest.mark.parametrize("wrong", [FGSM(0.1), None, "Mixed"])
def test_refuses_to_replace_a_method_by_something_else(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Method such as Mixed"):
        AdversarialModule(mlp(), FGSM(0.1)).method = wrong


def test_refuses_a_wrong_argument_given_late() -> None:
    module = AdversarialModule(mlp(), FGSM(0.1))
    with pytest.raises(ValueError, match="alpha=5"):
        module.alpha = 5
    with pytest.raises(TypeError, match="attack='fgsm'"):
        module.attack = "fgsm"
    with pytest.raises(TypeError, match="attack='fgsm'"):
        Mixed("fgsm")
    own = AdversarialModule(mlp(), method=HalfAndHalf(PGD(0.1, steps=1)))
    with pytest.raises(TypeError, match=r"alpha.*Mixed.*HalfAndHalf"):
        own.alpha = 0.2


def test_refuses_an_objective_of_another_kind() -> None:
    class Bare(AdversarialModule):
        def objective(self, x: Tensor, y: Tensor) -> Any:
            return self.loss(self(x), y)

    with pytest.raises(TypeError, match=r"Bare is a Tensor.*Objective"):
        fit(Bare(mlp(), FGSM(0.1)), batches(1))


def test_losses_keep_no_graph() -> None:
    class Attached(HalfAndHalf):
        def loss(self, learner: Learner, x: Tensor, x_adv: Tensor, y: Tensor) -> Objective:
            clean = learner.loss(learner(x), y)
            return Objective(clean, clean, clean)

    module = AdversarialModule(mlp(), method=Attached(PGD(0.1, steps=1)))
    fit(module, batches(2))
    assert not any(part.requires_grad for part in module.newest)


# What a checkpoint remembers


class Weighted(HalfAndHalf):
    """Has arguments that are not all data."""

    def __init__(self, attack: PGD, others: Any = None, weight: Any = 0.5) -> None:
        super().__init__(attack, weight)
        self.others = others


def test_a_checkpoint_holds_lists_of_attacks_and_numpys_numbers(tmp_path: Path) -> None:
    method = Weighted(PGD(0.1, steps=1), [FGSM(0.1), FGSM(0.2)], np.float32(0.25))
    fit(AdversarialModule(mlp(), method=method), batches(1)).save_checkpoint(tmp_path / "it.ckpt")
    again = AdversarialModule.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp()).method
    assert ([each.eps for each in again.others], again.weight) == ([0.1, 0.2], 0.25)


@pytest.mark.filterwarnings("ignore:Attribute 'others' is an instance of `nn.Module`")
@pytest.mark.parametrize("others", [lambda z: z, mlp()])
def test_what_a_checkpoint_cannot_hold_is_asked_for(others: Any, tmp_path: Path) -> None:
    method = Weighted(PGD(0.1, steps=1), others)
    fit(AdversarialModule(mlp(), method=method), batches(1)).save_checkpoint(tmp_path / "it.ckpt")
    with pytest.raises(TypeError, match=r"Weighted.*pass method="):
        AdversarialModule.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp())
    again = AdversarialModule.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp(), method=method)
    assert again.method is method


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
def test_save_hyperparameters_of_a_subclass_keeps_the_method(tmp_path: Path) -> None:
    class Mine(AdversarialModule):
        def __init__(self, backbone: Any, attack: Any = None, method: Any = None, k: int = 1) -> None:
            super().__init__(backbone, attack=attack, method=method)
            self.save_hyperparameters(ignore=["backbone"])

    module = Mine(mlp(), method=HalfAndHalf(PGD(0.1, steps=1), 0.3))
    fit(module, batches(1)).save_checkpoint(tmp_path / "it.ckpt")
    again = Mine.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp())
    assert again.method.config() == module.method.config()


@pytest.mark.parametrize(
    "broken", [{}, {"class_path": 3}, {"class_path": ".x.Y"}, {"class_path": "a.B", "init_args": []}]
)
def test_a_broken_description_is_named(broken: Any) -> None:
    with pytest.raises((TypeError, ImportError), match=r"class_path|description|No module"):
        AdversarialModule(mlp(), attack=broken)


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
