"""What a module was built with comes back from its checkpoint, or is named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum, IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import StepLR

from adv_lightning import FGSM, PGD, AdversarialEarlyStopping, AdversarialModule
from adv_lightning.data import DigitsDataModule
from adv_lightning.evaluation.metrics_record import write_json
from adv_lightning.methods.checkpoint_format import read_checkpoint
from tests.support.helpers import batches, fit, mlp, quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


def saved(module: AdversarialModule, folder: Path, **kwargs: Any) -> Path:
    fit(module, batches(1), **kwargs).save_checkpoint(folder / "it.ckpt")
    return folder / "it.ckpt"


class Readme(AdversarialModule):
    """The subclass of the README."""

    def __init__(self, smoothing: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smoothing = smoothing

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, label_smoothing=self.smoothing)


def test_a_subclass_comes_back_with_its_arguments_and_its_optimizer(tmp_path: Path) -> None:
    module = Readme(
        0.3,
        backbone=mlp(),
        attack=FGSM(0.2),
        alpha=0.25,
        optimizer=partial(SGD, lr=0.5, momentum=0.9),
        lr_scheduler=partial(StepLR, step_size=3),
    )
    again = Readme.load_from_checkpoint(saved(module, tmp_path), backbone=mlp())
    assert (again.smoothing, again.alpha, again.attack.eps) == (0.3, 0.25, 0.2)
    config = again.configure_optimizers()
    optimizer, scheduler = config["optimizer"], config["lr_scheduler"]["scheduler"]
    assert (type(optimizer), optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (SGD, 0.5, 0.9)
    assert (type(scheduler), scheduler.step_size) == (StepLR, 3)
    other = Readme.load_from_checkpoint(saved(module, tmp_path), backbone=mlp(), smoothing=0.7, optimizer=Adam)
    assert (other.smoothing, other.optimizer_factory) == (0.7, Adam)


def test_the_base_class_keeps_its_optimizer(tmp_path: Path) -> None:
    again = AdversarialModule.load_from_checkpoint(
        saved(AdversarialModule(mlp(), FGSM(0.1), optimizer=AdamW), tmp_path), backbone=mlp()
    )
    assert again.optimizer_factory is AdamW


def test_a_checkpoint_for_a_module_with_other_arguments_is_said(tmp_path: Path) -> None:
    path = saved(Readme(0.3, backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    with pytest.warns(UserWarning, match=r"smoothing=0\.3, .* 0\.1"):
        quiet_trainer().test(Readme(backbone=mlp(), attack=FGSM(0.1)), batches(1), ckpt_path=path, verbose=False)
    quiet_trainer().test(Readme(0.3, backbone=mlp(), attack=FGSM(0.1)), batches(1), ckpt_path=path, verbose=False)
    assert Readme.load_from_checkpoint(path, backbone=mlp(), alpha=0.9).alpha == 0.9


def test_the_base_class_loads_the_subclass(tmp_path: Path) -> None:
    path = saved(Readme(0.3, backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    again = AdversarialModule.load_from_checkpoint(path, backbone=mlp())
    assert isinstance(again, Readme)
    assert again.smoothing == 0.3


def test_another_class_is_named(tmp_path: Path) -> None:
    class Local(AdversarialModule): ...

    path = saved(Local(mlp(), FGSM(0.2)), tmp_path)
    assert isinstance(Local.load_from_checkpoint(path, backbone=mlp()), Local)
    with pytest.warns(UserWarning, match=r"holds a .*Local.*loaded as a AdversarialModule"):
        AdversarialModule.load_from_checkpoint(path, backbone=mlp())


def test_an_open_file(tmp_path: Path) -> None:
    path = saved(Any_(Path("a"), backbone=mlp(), attack=FGSM(0.2), optimizer=partial(SGD, lr=0.5)), tmp_path)
    with path.open("rb") as file:
        again = AdversarialModule.load_from_checkpoint(file, backbone=mlp())
    assert isinstance(again, Any_)
    assert (again.value, again.optimizer_factory.keywords) == (Path("a"), {"lr": 0.5})


def test_arguments_as_an_address_gives_them(tmp_path: Path) -> None:
    stored = read_checkpoint(saved(AdversarialModule(mlp(), optimizer=partial(SGD, lr=0.5)), tmp_path))
    again = AdversarialModule(mlp(), **stored["hyper_parameters"])
    assert again.configure_optimizers().defaults["lr"] == 0.5


# Constructors of all kinds


class Positional(AdversarialModule):
    def __init__(self, backbone: nn.Module, width: int, *args: Any, key: str, **kwargs: Any) -> None:
        super().__init__(backbone, *args, **kwargs)
        self.width, self.key = width, key


class Further(Readme):
    """A subclass of a subclass."""

    def __init__(self, depth: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth


class Fixed(AdversarialModule):
    """Chooses arguments of the base class itself, and builds its own network."""

    def __init__(self, eps: float, **kwargs: Any) -> None:
        super().__init__(backbone=mlp(), attack=FGSM(eps), alpha=1 - eps, optimizer=lambda p: SGD(p, lr=eps), **kwargs)


class Saves(AdversarialModule):
    """Saves hyper-parameters itself."""

    def __init__(self, smoothing: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters(ignore=["backbone"])
        self.smoothing = smoothing


def test_positional_and_keyword_only_arguments(tmp_path: Path) -> None:
    module = Positional(mlp(), 7, FGSM(0.2), 0.25, key="k", masks="shared")
    again = Positional.load_from_checkpoint(saved(module, tmp_path), backbone=mlp())
    assert (again.width, again.key, again.attack.eps, again.alpha) == (7, "k", 0.2, 0.25)
    assert again.passes.masks == "shared"


def test_a_subclass_of_a_subclass(tmp_path: Path) -> None:
    module = Further(5, smoothing=0.3, backbone=mlp(), attack=FGSM(0.2))
    again = Further.load_from_checkpoint(saved(module, tmp_path), backbone=mlp())
    assert (again.depth, again.smoothing, again.attack.eps) == (5, 0.3, 0.2)


def test_a_subclass_that_fixes_arguments_of_the_base_class(tmp_path: Path) -> None:
    again = Fixed.load_from_checkpoint(saved(Fixed(0.25, val_attack_samples=3), tmp_path))
    assert (again.attack.eps, again.alpha, again.val_attack_samples) == (0.25, 0.75, 3)


@pytest.mark.filterwarnings("ignore:Attribute 'attack' is an instance of `nn.Module`")
def test_a_subclass_that_saves_hyperparameters_itself(tmp_path: Path) -> None:
    module = Saves(0.3, backbone=mlp(), attack=FGSM(0.2), optimizer=partial(SGD, lr=0.5))
    again = Saves.load_from_checkpoint(saved(module, tmp_path), backbone=mlp())
    assert (again.smoothing, again.attack.eps) == (0.3, 0.2)
    assert again.optimizer_factory.keywords == {"lr": 0.5}


def test_a_default_that_changes_later_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Readme(backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    monkeypatch.setattr(Readme.__init__, "__defaults__", (0.9,))
    assert Readme.load_from_checkpoint(path, backbone=mlp()).smoothing == 0.1


def test_a_default_of_the_base_class_that_changes_later_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Readme(backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    defaults = list(AdversarialModule.__init__.__defaults__ or ())
    defaults[defaults.index(0.5)] = 0.75
    monkeypatch.setattr(AdversarialModule.__init__, "__defaults__", tuple(defaults))
    with pytest.warns(UserWarning, match=r"alpha=0\.5, and this one has 0\.75"):
        Readme.load_from_checkpoint(path, backbone=mlp())
    assert Readme.load_from_checkpoint(path, backbone=mlp(), alpha=0.5).alpha == 0.5


class Steps(PGD):
    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_an_attack_that_hands_arguments_on(tmp_path: Path) -> None:
    module = AdversarialModule(mlp(), Steps("a", 0.2, 0.07, steps=3, seed=4))
    again = AdversarialModule.load_from_checkpoint(saved(module, tmp_path), backbone=mlp()).attack
    assert (again.eps, again.step_size, again.steps, again.seed) == (0.2, 0.07, 3, 4)
    assert again.config()["init_args"]["name"] == "a"


# What is no plain data


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Level(IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Options:
    path: Path
    level: Level = Level.LOW
    numbers: tuple[float, ...] = (0.5,)


@dataclasses.dataclass
class Derived:
    """Sets more than its fields; its constructor must not run when a file is read."""

    a: int
    built: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.a
        self.built += 1


class Pair(NamedTuple):
    a: int
    b: Any


class Any_(AdversarialModule):
    def __init__(self, value: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = value


VALUES = [
    *(Path("a/b"), Colour.BLUE, Level.LOW, Options(Path("x")), Pair(1, Path("y")), None, math.inf, 1j, b"b"),
    *({1, 2}, frozenset({"a"}), range(2, 9, 3), (1, [2, {"k": (3,)}]), {1: "a", (2, 3): Path("b")}),
    *(torch.float16, torch.device("cpu"), torch.Size([2, 3]), nn.ReLU, {"class_path": "os.system", "init_args": {}}),
    *({"adv_lightning_kind": "path", "value": "x"}, partial(SGD, lr=0.1).keywords, partial(nn.Linear, 3).keywords),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(value: Any, tmp_path: Path) -> None:
    path = saved(Any_({"inside": [value]}, backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    found = Any_.load_from_checkpoint(path, backbone=mlp()).value["inside"][0]
    assert (type(found), found) == (type(value), value)


def test_a_dataclass_comes_back_without_its_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Any_(Derived(3), backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    monkeypatch.setattr(Derived, "__post_init__", None)
    found = Any_.load_from_checkpoint(path, backbone=mlp()).value
    assert (type(found), found.a, found.twice, found.built) == (Derived, 3, 6, 1)


def test_arrays_tensors_attacks_and_numpys_numbers(tmp_path: Path) -> None:
    value = {"array": np.arange(3.0), "tensor": torch.arange(3), "attacks": [FGSM(0.1)], "n": np.float32(0.5)}
    path = saved(Any_(value, backbone=mlp(), attack=FGSM(np.float32(0.5)), alpha=np.float64(0.25)), tmp_path)
    found = Any_.load_from_checkpoint(path, backbone=mlp())
    assert np.array_equal(found.value["array"], np.arange(3.0))
    assert torch.equal(found.value["tensor"], torch.arange(3))
    assert found.value["attacks"][0].eps == 0.1
    assert (type(found.value["n"]), found.value["n"]) == (float, 0.5)
    assert (found.attack.eps, type(found.alpha), found.alpha) == (0.5, float, 0.25)


def numpys() -> AdversarialModule:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    attack = PGD(np.float32(0.125), steps=np.int64(2), seed=np.int64(3))
    optimizer = partial(SGD, lr=np.float64(0.125))
    return AdversarialModule(net, attack, np.float64(0.5), optimizer=optimizer, val_attack_samples=np.int64(10))


def test_numpys_numbers_anywhere_can_be_read(tmp_path: Path) -> None:
    class Counts(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"n": np.int64(3), "rates": [np.float32(0.5)]}

    data = DigitsDataModule(batch_size=np.int64(100), val_size=np.int64(100), seed=np.int64(3))
    stop = AdversarialEarlyStopping(patience=np.int64(3), min_delta=np.float64(0))
    trainer = quiet_trainer(callbacks=[stop, Counts()], limit_train_batches=1)
    trainer.fit(numpys(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    checkpoint = read_checkpoint(tmp_path / "it.ckpt")
    assert checkpoint["callbacks"][Counts().state_key] == {"n": 3, "rates": [0.5]}
    assert [state["patience"] for key, state in checkpoint["callbacks"].items() if "Early" in key] == [3]
    assert checkpoint["datamodule_hyper_parameters"]["val_size"] == 100
    again = AdversarialModule.load_from_checkpoint(tmp_path / "it.ckpt", backbone=numpys().backbone)
    assert again.attack.config() == numpys().attack.config()


class Remembers(Callback):
    """A callback whose state is more than data."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return dict(self.state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict


def test_a_callbacks_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"path": Path("a"), "n": np.int64(3), "set": {1}, "colour": Colour.RED, "d": {"class_path": "x.Y"}}
    first, again = Remembers(**state), Remembers()
    path = saved(AdversarialModule(mlp(), FGSM(0.1)), tmp_path, callbacks=[first])
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[again])
    trainer.fit(AdversarialModule(mlp(), FGSM(0.1)), batches(1), batches(1), ckpt_path=path)
    assert again.state == state
    assert type(again.state["n"]) is int


def test_a_callbacks_state_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    trainer = fit(AdversarialModule(mlp(), FGSM(0.1)), batches(1), callbacks=[Remembers(f=lambda: 0, n=3)])
    with pytest.warns(UserWarning, match=r"Remembers\['f'\]"):
        trainer.save_checkpoint(tmp_path / "it.ckpt")
    assert read_checkpoint(tmp_path / "it.ckpt")["callbacks"]["Remembers"] == {"n": 3}


def test_a_data_modules_settings_can_be_read(tmp_path: Path) -> None:
    class Mine(DigitsDataModule):
        def __init__(self, root: Path, change: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    trainer = quiet_trainer(limit_train_batches=1, limit_val_batches=0)
    trainer.fit(numpys(), datamodule=Mine(Path("a"), print, batch_size=100))
    with pytest.warns(UserWarning, match=r"datamodule\.change"):
        trainer.save_checkpoint(tmp_path / "it.ckpt")
    stored = read_checkpoint(tmp_path / "it.ckpt")["datamodule_hyper_parameters"]
    assert (stored["root"], stored["batch_size"]) == ("a", 100)


def test_rules_see_pythons_numbers() -> None:
    for steps in (np.int64(3), torch.tensor(3), np.array(3)):
        attack = PGD(0.1, steps=steps, random_start=False)
        assert attack.threat_model() == PGD(0.1, steps=3, random_start=False).threat_model()
        assert attack.config() == PGD(0.1, steps=3, random_start=False).config()


def test_a_record_of_anything_is_json(tmp_path: Path) -> None:
    record = {
        "n": np.int64(3), "rate": np.float32("nan"), "path": Path("a"), 5: {"set": {1}, "t": torch.tensor([math.inf])},
        "colour": Colour.RED, "options": Options(Path("x")), "dtype": torch.float16, "optimizer": partial(SGD, lr=0.5),
    }  # fmt: skip
    write_json(record, tmp_path, "it.json")
    text = (tmp_path / "it.json").read_text()
    assert '"n": 3,' in text
    assert '"rate": null' in text
    assert '"colour": "RED"' in text
    assert "adv_lightning_kind" not in text


# What cannot be stored


@pytest.mark.parametrize("name", ["optimizer", "lr_scheduler"])
def test_a_lambda_is_named_once_when_saving_and_when_loading(name: str, tmp_path: Path) -> None:
    factory = {"optimizer": lambda p: SGD(p, lr=0.1), "lr_scheduler": lambda o: StepLR(o, 3)}[name]
    trainer = fit(AdversarialModule(mlp(), FGSM(0.1), **{name: factory}), batches(1))
    with pytest.warns(UserWarning, match=rf"does not hold {name} .*{name}=.*functools\.partial"):
        trainer.save_checkpoint(tmp_path / "it.ckpt")
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    with pytest.warns(UserWarning, match=rf"does not hold {name} .*{name}="):
        AdversarialModule.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp())
    again = AdversarialModule.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp(), **{name: factory})
    assert getattr(again, f"{name}_factory") is factory


class Teacher(AdversarialModule):
    def __init__(self, backbone: nn.Module, teacher: Any, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.teacher = [teacher]


def test_an_argument_without_a_default_is_asked_for(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        trainer = fit(Teacher(mlp(), file, attack=FGSM(0.2)), batches(1))
        with pytest.warns(UserWarning, match=r"teacher .*Teacher"):
            trainer.save_checkpoint(tmp_path / "it.ckpt")
    with pytest.raises(TypeError, match=r"teacher.*pass teacher="):
        Teacher.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp())
    again = Teacher.load_from_checkpoint(tmp_path / "it.ckpt", backbone=mlp(), teacher=3)
    assert (again.teacher, again.attack.eps) == ([3], 0.2)


@pytest.mark.parametrize(
    "value",
    [
        {"adv_lightning_kind": "class", "class_path": "subprocess.Popen"},
        {"adv_lightning_kind": "partial", "class_path": "subprocess.Popen", "init_args": {"args": "false"}},
        {"adv_lightning_kind": "enum", "class_path": "os.system", "name": "x"},
        {"adv_lightning_kind": "enum", "class_path": f"{__name__}.Colour", "name": "GREEN"},
        {"adv_lightning_kind": "record", "class_path": "subprocess.Popen", "fields": {}},
        {"adv_lightning_kind": "record", "class_path": f"{__name__}.Options", "fields": {}},
        {"adv_lightning_kind": "class", "class_path": "never_imported.Thing"},
        {"adv_lightning_kind": "spell", "value": 3},
        {"adv_lightning_kind": "path"},
        {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 1}},
    ],
)
def test_a_file_may_not_name_anything_else(value: Mapping[str, Any], tmp_path: Path) -> None:
    path = saved(Any_(1, backbone=mlp(), attack=FGSM(0.2)), tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["value"] = [value]
    torch.save(checkpoint, path)
    refusal = r"value cannot be restored.*pass value=|so it is not built"
    with pytest.raises((TypeError, ImportError, ValueError), match=refusal):
        Any_.load_from_checkpoint(path, backbone=mlp())
    assert Any_.load_from_checkpoint(path, backbone=mlp(), value=2).value == 2


def test_a_callbacks_early_stopping_of_lightning(tmp_path: Path) -> None:
    stop = EarlyStopping("val/adv_error", patience=np.int64(2))
    trainer = quiet_trainer(callbacks=[stop])
    trainer.fit(AdversarialModule(mlp(), FGSM(0.1)), batches(1), batches(1))
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    assert read_checkpoint(tmp_path / "it.ckpt")["callbacks"][stop.state_key]["patience"] == 2
