"""The cases of tests/project/test_ddp.py, each run by one process alone and by every one of several.

`python -m tests.support.ddp_cases FOLDER`, started once per process with the variables of torch.distributed, writes
each case's result to FOLDER/<case>-<rank>.pt.
"""

from __future__ import annotations

import os
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from adv_lightning import (
    FGSM,
    PGD,
    AdversarialModule,
    AttackSuite,
    ClassCentres,
    FiniteLoss,
    FirstLayer,
    Fooling,
    HiddenPerturbation,
    InputNoise,
    LogitSweep,
    NotFiniteError,
    RBFLoss,
    Report,
    Rotation,
    RubbishTest,
    RubbishTraining,
    SignNoise,
    SingleStepAttack,
)
from adv_lightning.data import DigitsDataModule
from adv_lightning.metrics import (
    Agreement,
    ConfidenceHistogram,
    ErrorRate,
    MistakeClasses,
    MistakeConfidence,
    WrongClassProbability,
)
from adv_lightning.models import ShallowRBF
from tests.data.recorder import Recorder
from tests.support.helpers import Batches, batches, quiet_trainer, weights
from tests.support.interrupted import At

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def trainer(strategy: str = "ddp", **kwargs: Any) -> Trainer:
    return quiet_trainer(devices=WORLD, strategy=strategy if WORLD > 1 else "auto", **kwargs)


def own_part(loader: Batches) -> Batches:
    """Of each batch, the examples dealt to this process."""
    return Batches(*((x[RANK::WORLD], y[RANK::WORLD]) for x, y in loader))


class Partly(nn.Module):
    """A network with a layer that the output never reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.unused, self.last = nn.Linear(6, 7), nn.Linear(7, 7), nn.Linear(7, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).tanh())


def network(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), *between, nn.Linear(7, 3)).double()


def trained(net: nn.Module, attack: Any = None, strategy: str = "ddp", **kwargs: Any) -> dict[str, Any]:
    module = AdversarialModule(net, attack or FGSM(0.1), alpha=0.3, optimizer=sgd)
    fitting = trainer(strategy, limit_val_batches=0, **kwargs)
    loader = own_part(batches(10))
    fitting.fit(module, loader, loader)
    return {
        "weights": weights(module),
        "loss": fitting.callback_metrics["train/loss_epoch"].item(),
        "buffers": dict(module.named_buffers()),
    }


def plain() -> dict[str, Any]:
    return trained(network())


def pgd() -> dict[str, Any]:
    return trained(network(), PGD(0.1, steps=3, random_start=False))


def unused_and_accumulated() -> dict[str, Any]:
    return trained(
        Partly(), strategy="ddp_find_unused_parameters_true", accumulate_grad_batches=2, gradient_clip_val=0.1
    )


def batch_norm() -> dict[str, Any]:
    return trained(network(nn.BatchNorm1d(7)))


class Masks(Callback):
    """What dropout leaves of ones, pass by pass."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.backbone[0].register_forward_hook(lambda module, args, output: self.seen.append(output.detach() != 0))


def dropout() -> dict[str, Any]:
    seed_everything(1)
    masks = Masks()
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).double()
    module = AdversarialModule(net, FGSM(0.1), optimizer=sgd)
    loader = Batches(*((torch.ones_like(x), y) for x, y in batches(3)))
    trainer(limit_val_batches=0, callbacks=[masks]).fit(module, loader, loader)
    return {"masks": torch.stack(masks.seen), "weights": weights(module)}


def judged(val_attack_samples: int | None = None) -> dict[str, Any]:
    """An odd number of digits in validation, and the suite in test."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    module = AdversarialModule(net, FGSM(0.1), val_attack_samples=val_attack_samples)
    suite = AttackSuite({"PGD": PGD(0.1, steps=2)}, max_samples=101)
    judging = trainer(callbacks=[suite])
    data = DigitsDataModule(batch_size=50)
    (val,) = judging.validate(module, datamodule=data, verbose=False)
    (test,) = judging.test(module, datamodule=data, verbose=False)
    return {"val": val, "test": test, "rows": suite.rows}


def evaluated() -> dict[str, Any]:
    """Everything that judges, on an odd number of digits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        net[3].weight.mul_(5)  # so that it is sure of something
    kinds: list[Any] = ["gaussian", "uniform", "attacked"]
    evaluators = [
        AttackSuite(masking=True, max_samples=51),
        RubbishTest(250, kinds),
        Fooling(130, max_draws=200),
        FirstLayer(),
    ]
    judging = trainer(callbacks=[*evaluators, LogitSweep(), Report()])
    judging.validate(AdversarialModule(net, FGSM(0.1)), datamodule=DigitsDataModule(batch_size=50), verbose=False)
    sections = [evaluator.section for evaluator in evaluators if evaluator.section]
    return {
        "rows": [row for section in sections for row in section.rows],
        "record": {name: value for section in sections for name, value in section.record.items()},
        "tables": [table.rows for section in sections for table in section.tables],
    }


def broken() -> dict[str, Any]:
    """A NaN in the last batch of the last process."""
    loader = batches(3)
    if RANK == WORLD - 1:
        loader.batches[-1][0][0, 0] = torch.nan
    fitting = trainer(limit_val_batches=0, callbacks=[FiniteLoss()])
    try:
        fitting.fit(AdversarialModule(network(), FGSM(0.1), optimizer=sgd), loader, loader)
    except NotFiniteError as error:
        return {"said": str(error)}
    return {"said": "nothing"}


def judged_on_51() -> dict[str, Any]:
    return judged(51)


def judged_on_1() -> dict[str, Any]:
    return judged(1)


def metrics() -> dict[str, Any]:
    """Metrics updated with a part of fixed probabilities each, and without a mistake."""
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(101, 4, generator=generator)).softmax(1)
    y = torch.randint(4, (101,), generator=generator)
    error, confidence, none = ErrorRate(), MistakeConfidence(), MistakeConfidence()
    part = slice(RANK, None, WORLD)
    predicted = probabilities.argmax(1)
    error.update(predicted[part], y[part])
    confidence.update(probabilities[part], predicted[part], y[part])
    none.update(probabilities[part], y[part], y[part])
    return {"error": error.compute(), "confidence": confidence.compute(), "none": none.compute()}


def counts() -> dict[str, Any]:
    """Metrics of mistakes and of agreement, the second process with the first examples alone."""
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(101, 4, generator=generator)).softmax(1)
    y, other = torch.randint(4, (2, 101), generator=generator)
    wrong, classes, histogram, agreement = (
        WrongClassProbability(),
        MistakeClasses(4),
        ConfidenceHistogram(),
        Agreement(),
    )
    part = slice(None) if WORLD == 1 else slice(None, 7) if RANK else slice(7, None)
    probabilities, y, other = probabilities[part], y[part], other[part]
    predicted = probabilities.argmax(1)
    wrong.update(probabilities, predicted, y)
    classes.update(predicted, y)
    histogram.update(probabilities, predicted, y)
    agreement.update(predicted, other, y)
    with agreement.sync_context():
        totals = agreement.total.clone()
    return {
        "wrong": wrong.compute(),
        "classes": classes.compute(),
        "histogram": histogram.compute(),
        "agreement": agreement.compute(),
        "totals": totals,
    }


def hidden(rule: SingleStepAttack, **kwargs: Any) -> dict[str, Any]:
    """A hidden layer perturbed in training, its size logged in validation and test, on an odd number of digits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    callback = HiddenPerturbation(["1"], rule)
    result = trained(net, callbacks=[callback], **kwargs)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    module, data = AdversarialModule(net, FGSM(0.1), val_attack_samples=51), DigitsDataModule(batch_size=50)
    judging = trainer(callbacks=[HiddenPerturbation(["2"])])
    (result["val"],) = judging.validate(module, datamodule=data, verbose=False)
    (result["test"],) = judging.test(module, datamodule=data, verbose=False)
    return result


def hidden_fgsm() -> dict[str, Any]:
    return hidden(FGSM(0.2))


def hidden_rotation() -> dict[str, Any]:
    return hidden(Rotation(0.3), accumulate_grad_batches=2)


class Draws(Callback):
    """The inputs of a network, pass by pass."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.backbone.register_forward_pre_hook(lambda module, args: self.seen.append(args[0].detach().clone()))


def drawn(alpha: float, *callbacks: Callback) -> dict[str, Any]:
    """Training on random draws, from inputs that are zero."""
    seed_everything(1)
    torch.manual_seed(0)
    draws, net = Draws(), nn.Sequential(nn.Linear(200, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    module = AdversarialModule(net, FGSM(0.1), alpha=alpha, optimizer=sgd)
    fitting = trainer(limit_val_batches=0, max_epochs=2, callbacks=[*callbacks, draws])
    loader = own_part(batches(3))
    loader = Batches(*((torch.zeros(len(x), 200, dtype=x.dtype), y) for x, y in loader))
    fitting.fit(module, loader, loader)
    figures = {name: value.item() for name, value in fitting.callback_metrics.items() if name.startswith("noise/")}
    return {"draws": torch.stack(draws.seen), "weights": weights(module), "figures": figures}


def noise() -> dict[str, Any]:
    return drawn(0.0, InputNoise(SignNoise(0.5)))


def noise_compared() -> dict[str, Any]:
    return drawn(0.0, InputNoise(SignNoise(0.5), 2))


def rubbish() -> dict[str, Any]:
    return drawn(1.0, RubbishTraining())


class Centres(Callback):
    """The centres before the first step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found = pl_module.backbone.mu.detach().clone()


def centres() -> dict[str, Any]:
    module = AdversarialModule(ShallowRBF(10, (1, 8, 8)), FGSM(0.1), loss_fn=RBFLoss(), optimizer=sgd)
    found = Centres()
    fitting = trainer(callbacks=[ClassCentres(), found], limit_train_batches=2, limit_val_batches=0)
    fitting.fit(module, datamodule=DigitsDataModule(batch_size=50))
    return {"centres": found.found, "weights": weights(module)}


class Counted(DigitsDataModule):
    """Counts how often a part was read."""

    reads = 0

    def load(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        self.reads += 1
        return super().load(part)


def file_of(tensor: Tensor) -> list[str]:
    """The inode and the name of the file that a tensor's memory is mapped from; none for ordinary memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, inode, *name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        if start <= tensor.data_ptr() < end:
            return [inode, *name] if inode != "0" else []
    return []


def decoded() -> dict[str, Any]:
    """Training and test on seven of the ten digits: the reads, the sets, and the files that these are mapped from."""
    torch.manual_seed(0)
    net, data = nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), Counted(classes=[3, 1, 0, 9, 7, 6, 5])
    module, both = AdversarialModule(net, FGSM(0.1), optimizer=sgd), trainer(limit_train_batches=2)
    both.fit(module, datamodule=data)
    (figures,) = both.test(module, datamodule=data, verbose=False)
    sets = [images for images in (data.train_set, data.val_set, data.test_set) if images is not None]
    return {
        "reads": data.reads,
        "sets": [(images.images.clone(), images.labels.clone()) for images in sets],
        "files": [file_of(images.images) for images in sets],
        "figures": figures,
    }


def continued() -> dict[str, Any]:
    """The images of an epoch of digits: two steps with batches of 100, and the rest with batches of 37."""
    first, rest, path = Recorder(), Recorder(), Path("continued.ckpt").absolute()
    half = At(2, lambda trainer: trainer.save_checkpoint(path))
    trainer(callbacks=[half], limit_val_batches=0).fit(
        first, datamodule=DigitsDataModule(batch_size=100, val_size=100, seed=3)
    )
    data = DigitsDataModule(batch_size=37, val_size=100, seed=3)
    second = trainer(limit_val_batches=0)
    second.fit(rest, datamodule=data, ckpt_path=path, weights_only=True)
    assert data.train_set is not None
    return {
        "images": torch.cat([x for *_, x, _ in (*first.seen[:2], *rest.seen)]).flatten(1),
        "every": data.train_set.images.flatten(1) / 16,
        "over": second.is_last_batch,
    }


def decoded_without_room() -> dict[str, Any]:
    """The same where no file may be longer than 50 kB."""
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = decoded()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    said = [str(warning.message) for warning in caught]
    return result | {"said": [line for line in said if line.startswith("each process reads")]}


CASES: list[Callable[[], dict[str, Any]]] = [
    plain, pgd, unused_and_accumulated, batch_norm, dropout, judged, judged_on_51, judged_on_1, metrics, counts,
    hidden_fgsm, hidden_rotation, noise, noise_compared, rubbish, centres, evaluated, broken,
    decoded, decoded_without_room, continued,
]  # fmt: skip

if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
    for case in CASES:
        torch.save(case(), Path(sys.argv[1]) / f"{case.__name__}-{RANK}.pt")
