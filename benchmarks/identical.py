"""`python -m benchmarks.identical`: show that a change leaves training as it was, to the bit.

Record before the change, check after it, on one machine with one version of torch: others round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn

from adv_lightning import (
    FGSM,
    PGD,
    AdversarialModule,
    Attack,
    HiddenPerturbation,
    InputNoise,
    L1Penalty,
    MaxNorm,
    MomentumSchedule,
    Rotation,
    RubbishTraining,
    ScaledGradient,
    SigmoidLoss,
    SignNoise,
    UniformNoise,
    main,
)
from adv_lightning.data import DigitsDataModule
from adv_lightning.models import MaxoutMLP, SmallConvNet
from benchmarks.epochs import aside

Result = dict[str, Any]
STEPS = 20
LAYER = "net.maxout1"
CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"

maxout = partial(MaxoutMLP, 10, (1, 8, 8), units=20, pieces=3)
convnet = partial(SmallConvNet, 10, (1, 8, 8), width=4)
sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.5)


class Losses(Callback):
    """Each step's loss, in hex."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        self.seen.append(outputs["loss"].item().hex())


def trained(
    attack: Attack | None,
    *callbacks: Callback,
    net: Callable[[], nn.Module] = maxout,
    trainer: Mapping[str, Any] | None = None,
    **module: Any,
) -> Result:
    """Train `STEPS` steps on the digits, and judge two batches after each epoch."""
    seed_everything(5, verbose=False)
    model = AdversarialModule(net(), attack, optimizer=sgd, **module)
    losses = Losses()
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **(trainer or {})}
    with aside() as folder:
        run = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=STEPS,
            limit_val_batches=2,
            log_every_n_steps=5,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[losses, *callbacks],
            **settings,
        )
        run.fit(model, datamodule=DigitsDataModule(batch_size=50))
    return {"losses": losses.seen, **left(run, model)}


def by_command(*, stopped_after: int | None = None) -> Result:
    """Train the default job for four epochs; with `stopped_after` steps, stop there and go on from the checkpoint."""
    with aside() as folder:
        words = ["fit", f"--config={CONFIG}", f"--trainer.default_root_dir={folder}", "--trainer.max_epochs=4"]
        words += ["--trainer.enable_progress_bar=false", "--test_after_fit=false"]
        if stopped_after is not None:
            main([*words, f"--trainer.max_steps={stopped_after}"])
            words.append("--ckpt_path=last")
        cli = main(words)
        return left(cli.trainer, cli.model)


def left(trainer: Trainer, module: AdversarialModule) -> Result:
    """What a training leaves: its last figures in hex, and the SHA-256 of its weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    figures = {name: float(value).hex() for name, value in sorted(trainer.callback_metrics.items())}
    return {"figures": figures, "weights": digest.hexdigest()}


def fgsm(*callbacks: Callback, **kwargs: Any) -> Result:
    return trained(FGSM(0.1), *callbacks, **kwargs)


def pgd(**kwargs: Any) -> Result:
    return trained(PGD(0.1, step_size=0.03, steps=4), **kwargs)


HALF = {"precision": "bf16-mixed"}
CASES: dict[str, Callable[[], Result]] = {
    "maxout": fgsm,
    "max norm, momentum": lambda: fgsm(MaxNorm(1.9), MomentumSchedule()),
    "batch norm": lambda: fgsm(net=convnet),
    "batch norm, clean statistics": lambda: fgsm(net=convnet, statistics="clean"),
    "accumulated, clipped": lambda: fgsm(trainer={"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}),
    "hidden": lambda: fgsm(HiddenPerturbation([LAYER], Rotation(0.2))),
    "hidden only": lambda: fgsm(HiddenPerturbation([LAYER], FGSM(0.2), perturb_input=False, relative=True)),
    "noise": lambda: fgsm(InputNoise(SignNoise(0.1), compare_every_n_steps=3)),
    "noise only": lambda: fgsm(InputNoise(UniformNoise(0.1)), alpha=0.0),
    "bf16": lambda: fgsm(trainer=HALF),
    "bf16, batch norm": lambda: fgsm(net=convnet, trainer=HALF),
    "crafted in eval mode": lambda: fgsm(crafting="eval"),
    "shared masks": lambda: fgsm(masks="shared"),
    "pgd": lambda: pgd(alpha=0.3),
    "pgd, eval mode, alpha 0": lambda: pgd(net=convnet, alpha=0.0, crafting="eval"),
    "plain": lambda: trained(None, val_attack=FGSM(0.1)),
    "alpha 0": lambda: fgsm(alpha=0.0),
    "alpha 1": lambda: fgsm(alpha=1.0),
    "differentiable": lambda: trained(ScaledGradient(1.0, differentiable=True)),
    "sigmoid, l1, rubbish": lambda: fgsm(L1Penalty(0.001, [LAYER]), RubbishTraining(), loss_fn=SigmoidLoss()),
    "command": by_command,
    "command, resumed": lambda: by_command(stopped_after=17),
}


def differences(old: Result, new: Result) -> list[str]:
    """Name what differs between two results of a case: the first loss, each figure, the weights."""
    found = []
    pairs = zip(old.get("losses", []), new.get("losses", []), strict=False)
    first = next(((step, a, b) for step, (a, b) in enumerate(pairs) if a != b), None)
    if first is not None:
        step, a, b = first
        found.append(f"loss of step {step}: {float.fromhex(a)!r} was recorded, {float.fromhex(b)!r} is found")
    elif len(old.get("losses", [])) != len(new.get("losses", [])):
        found.append(f"steps: {len(old['losses'])} were recorded, {len(new['losses'])} are found")
    names = sorted(old["figures"].keys() | new["figures"].keys())
    found += [name for name in names if old["figures"].get(name) != new["figures"].get(name)]
    return found + ["weights"] * (old["weights"] != new["weights"])


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identical", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--record", type=Path, metavar="FILE", help="train, and write losses, figures and weights")
    action.add_argument("--check", type=Path, metavar="FILE", help="train what FILE records, and name what differs")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)}; default all")
    options = parser.parse_args(args)
    torch.set_num_threads(1)  # their number decides the last bits
    recorded = {} if options.check is None else json.loads(options.check.read_text(encoding="utf-8"))
    names = options.cases or list(recorded or CASES)
    strange = set(names) - set(CASES if options.check is None else CASES.keys() & recorded.keys())
    if strange:
        parser.error(f"{options.check} and this version do not both know {', '.join(sorted(strange))}: record anew")
    results = {name: CASES[name]() for name in names}
    if options.record is not None:
        options.record.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        return 0
    different = {name: differences(recorded[name], results[name]) for name in names}
    for name, found in different.items():
        print(f"{name}: {'; '.join(found) or 'identical'}")
    return int(any(different.values()))


if __name__ == "__main__":
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6 calls its older names
    sys.exit(run())
