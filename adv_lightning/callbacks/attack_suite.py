"""Further attacks in test, so that no figure stands alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from adv_lightning.attacks import FGSM, PGD, Attack, ScaledGradient
from adv_lightning.callbacks._checks import adversarial
from adv_lightning.callbacks.record import test_record, write_json
from adv_lightning.data.seeding import mix_seed
from adv_lightning.figures import share
from adv_lightning.metrics import ErrorRate, MistakeConfidence, RubbishRate
from adv_lightning.module import AdversarialModule

_STEPS = 40
_CHUNK = 100


class AttackSuite(Callback):
    """Judges the network in test under named attacks, beside the module's own, and prints them in one table.

    An error under FGSM says how the network fares against FGSM and no more; the table puts a stronger attack
    beside it. Where nothing can stand beside the module's own attack, or there is none, a line says so. The
    figures are logged as `test/<name>_error` and written to `metrics.json` in the run's directory.

    Args:
        attacks: Attacks by name. Null: FGSM, and PGD of 40 steps, at the eps and bounds of the module's
            `val_attack`, each left out if that attack is the same, or PGD of more steps.
        max_samples: Judge only the first so many test examples under these attacks. Null: all.
        rubbish_samples: Show the network so many draws from N(0, I) in the shape of its input, and count those it takes
            for a class with a probability above 1/2 (Goodfellow et al. 2015, appendix A). 0: none.

    Raises:
        ValueError: max_samples is below 1, or rubbish_samples negative.
    """

    def __init__(
        self,
        attacks: dict[str, Attack] | None = None,
        max_samples: int | None = None,
        rubbish_samples: int = 0,
    ) -> None:
        if rubbish_samples < 0:
            raise ValueError(f"rubbish_samples={rubbish_samples!r}: give 0 or more")
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"max_samples={max_samples!r}: give at least 1, or null for all")
        self.attacks = attacks
        self.max_samples = max_samples
        self.rubbish_samples = rubbish_samples
        self.rows: list[dict[str, Any]] = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        attacks = _default_attacks(adversarial(pl_module, self)) if self.attacks is None else self.attacks
        self._figures = {
            name: (attack, ErrorRate().to(pl_module.device), MistakeConfidence().to(pl_module.device))
            for name, attack in attacks.items()
        }
        self._seen = 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        module = adversarial(pl_module, self)
        x, y = module.unpack(batch)
        n = share(self.max_samples, trainer.global_rank, trainer.world_size, self._seen, len(x))
        self._seen += len(x)
        self._shape = x.shape[1:]
        if n == 0:
            return
        x, y = x[:n], y[:n]
        with trainer.precision_plugin.forward_context():
            for attack, error, confidence in self._figures.values():
                logits = module(attack(module, x, y, loss_fn=module.loss))
                predicted = module.loss_fn.predict(logits)
                error.update(predicted, y)
                confidence.update(module.loss_fn.probabilities(logits), predicted, y)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = adversarial(pl_module, self)
        self.rows = [_row("clean", None, module.figures.error, None)]
        if module.val_attack is not None:
            name = type(module.val_attack).__name__
            self.rows.append(_row(name, module.val_attack, module.figures.adv_error, module.figures.adv_confidence))
        for name, (attack, error, confidence) in self._figures.items():
            row = _row(name, attack, error, confidence)
            module.log(f"test/{name}_error", row["error"], sync_dist=True)
            self.rows.append(row)
        if self.rubbish_samples:
            self.rows.append(self._rubbish(trainer, module))
        directory = trainer.log_dir  # every process must ask: rank zero broadcasts it
        if trainer.is_global_zero:
            _print(self.rows)
            if self.attacks is None and not self._figures:
                _say_what_is_missing(module.val_attack)
            if directory is not None and trainer.loggers:
                write_json(test_record(trainer, module, self.rows), directory, "metrics.json")

    def _rubbish(self, trainer: Trainer, module: AdversarialModule) -> dict[str, Any]:
        chunks = -(-self.rubbish_samples // _CHUNK)
        if chunks < trainer.world_size:
            raise ValueError(f"rubbish_samples={self.rubbish_samples}: give {_CHUNK} for each process, or 0 for none")
        rate: RubbishRate | None = None
        for i in range(trainer.global_rank, chunks, trainer.world_size):
            # Seeded by chunk, so that figures do not change with the number of processes.
            size = min(_CHUNK, self.rubbish_samples - i * _CHUNK)
            noise = torch.randn(size, *self._shape, generator=torch.Generator().manual_seed(mix_seed(0, i)))
            with trainer.precision_plugin.forward_context():
                x = trainer.precision_plugin.convert_input(noise).to(module.device)
                probabilities = module.loss_fn.probabilities(module(x))
            rate = rate or RubbishRate(probabilities.shape[1]).to(module.device)
            rate.update(probabilities)
        assert rate is not None
        error = rate.compute().item()
        module.log("test/rubbish_error", error)
        with rate.sync_context():
            n, confidence, classes = int(rate.total), rate.confidence().item(), rate.classes().tolist()
        return {
            "name": "rubbish",
            "attack": None,
            "rubbish": {"distribution": "N(0, I)", "threshold": rate.threshold, "seed": 0},
            "error": error,
            "confidence_on_mistakes": None if math.isnan(confidence) else confidence,
            "classes": None if error == 0 else classes,
            "n": n,
        }


def _default_attacks(module: AdversarialModule) -> dict[str, Attack]:
    own = module.val_attack
    eps, bounds = _max_norm(own), getattr(own, "bounds", None)
    if eps is None:
        return {}
    attacks: dict[str, Attack] = {}
    if type(own) is not FGSM:
        attacks["FGSM"] = FGSM(eps, bounds)
    if not (type(own) is PGD and own.steps >= _STEPS):
        attacks["PGD"] = PGD(eps, steps=_STEPS, bounds=bounds)
    # The module's own attack has its row under the name of its class.
    steps = {"FGSM": 1, "PGD": _STEPS}
    return {f"{name}-{steps[name]}" if name == type(own).__name__ else name: attack for name, attack in attacks.items()}


def _max_norm(attack: Attack | None) -> float | None:
    """Return the size of an attack in the max norm, as far as it has one."""
    eps = getattr(attack, "eps", None)
    return eps if isinstance(eps, int | float) and not isinstance(attack, ScaledGradient) else None


def _say_what_is_missing(own: Attack | None) -> None:
    if own is None:
        print(
            "No attack judged the network, so nothing is known of adversarial examples. Name one: "
            "--model.val_attack=FGSM --model.val_attack.eps=0.1"
        )
    elif _max_norm(own) is None:
        print(
            f"{type(own).__name__} alone judged the network, and has no eps in the max norm at which FGSM and PGD "
            "could stand beside it. Name attacks in callbacks.attack_suite.attacks"
        )


def _row(name: str, attack: Attack | None, error: ErrorRate, confidence: MistakeConfidence | None) -> dict[str, Any]:
    mean = math.nan if confidence is None else confidence.compute().item()
    with error.sync_context():
        n = int(error.total)
    return {
        "name": name,
        "attack": None if attack is None else attack.config(),
        "error": error.compute().item(),
        "confidence_on_mistakes": None if math.isnan(mean) else mean,
        "n": n,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Test, model in eval mode")
    table.add_column("attack")
    for column in ("n", "error", "confidence on mistakes"):
        table.add_column(column, justify="right")
    for row in rows:
        confidence = row["confidence_on_mistakes"]
        name = "rubbish, N(0, I)" if "rubbish" in row else row["name"]
        table.add_row(
            name if row["attack"] is None else _describe(row["attack"]),
            str(row["n"]),
            f"{row['error']:.2%}",
            "" if confidence is None else f"{confidence:.1%}",
        )
    Console().print(table)


def _describe(attack: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in attack["init_args"].items())
    return f"{attack['class_path'].rsplit('.', 1)[-1]}({arguments})"


def _short(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return _describe(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
