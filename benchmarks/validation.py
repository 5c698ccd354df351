"""What the attack adds to a validation epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from adv_lightning import FGSM, AdversarialModule, Attack
from adv_lightning.models import MaxoutMLP, SmallConvNet
from benchmarks.epochs import RandomImages, aside
from benchmarks.peers import EPS
from benchmarks.report import Bar, Section, Table
from benchmarks.timing import Run, figure, interleaved

NETS: dict[str, Callable[[], nn.Module]] = {"maxout 240 x 5": MaxoutMLP, "SmallConvNet": SmallConvNet}


class _Stopwatch(Callback):
    """Times the last validation epoch, without the start-up of `validate`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = self.run.now()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = self.run.now() - self.start


def measure(run: Run) -> Section:
    """Time a validation epoch with and without the attack."""
    images = 200 if run.quick else 2000
    nets = dict([*NETS.items()][:1]) if run.quick else NETS
    data = RandomImages(1, val_size=images)
    data.setup("validate")
    table = Table([f"{images} images, batch {data.batch_size}", "clean, ms", "clean and FGSM, ms", "ratio"])
    section = Section("A validation epoch", [table], [NOTE])
    for name, build in nets.items():
        with aside():
            contestants = {
                "clean": _validation(run, build(), None, data),
                "attacked": _validation(run, build(), FGSM(EPS), data),
            }
            found = interleaved(contestants, run.rounds_of(5))
        ratio = found["attacked"].over(found["clean"])
        table.rows.append([name, *(spread.show(1e3) for spread in found.values()), figure(ratio)])
        section.bars.append(Bar(f"validation of {name}: with the attack / without", ratio, 3.3))
        section.raw |= {f"{name}: {kind}": spread for kind, spread in found.items()}
    return section


def _validation(run: Run, net: nn.Module, attack: Attack | None, data: RandomImages) -> Callable[[], float]:
    module = AdversarialModule(net, None, val_attack=attack)
    watch = _Stopwatch(run)
    off: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    accelerator = "gpu" if run.device.type == "cuda" else "cpu"
    trainer = Trainer(accelerator=accelerator, devices=1, callbacks=[watch], enable_model_summary=False, **off)

    def validate() -> float:
        trainer.validate(module, datamodule=data, verbose=False)
        return watch.seconds

    return validate


NOTE = """\
From the first batch to the epoch's figures, by `Trainer.validate`. With the attack there are two forward passes and \
one backward pass by the input; the attack's own clean pass gives the clean figures."""
