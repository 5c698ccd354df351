"""Several networks judged under each other's adversarial examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from adv_lightning.attacks import Attack
from adv_lightning.attacks.description import as_call
from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.callbacks.run_folder import run_folder, show_png
from adv_lightning.data.atomic_write import write_atomically
from adv_lightning.data.sample_limit import ClassShares, within_limit
from adv_lightning.data.seeding import process_seed
from adv_lightning.evaluation.attack_counts import number_of_classes
from adv_lightning.evaluation.from_checkpoint import load_module, names_of
from adv_lightning.evaluation.metrics_record import circumstances, sha256, write_json
from adv_lightning.evaluation.plots import heat_map
from adv_lightning.evaluation.report_section import Section, Table, percent, png_of
from adv_lightning.evaluation.transfer_matrix import CLEAN, TransferMatrix, check_names
from adv_lightning.losses import predicted_classes
from adv_lightning.methods.evaluated_batch import unpacked
from adv_lightning.methods.input_checks import check_inputs
from adv_lightning.module import AdversarialModule

_MANY = 4  # networks: the table of their pairs is still readable


class Comparison(LightningModule):
    """Judges several networks under each other's adversarial examples (Goodfellow et al. 2015, sections 6, 8 and 9).

    `Trainer.test` crafts on every network in its own loss, shows the examples to all networks, prints error,
    confidence and agreement, and logs the errors as `test/transfer/<crafted on>_to_<judged>`. With a logger, it writes
    `metrics.json`, `transfer_error.png` and `transfer_confidence.png` to the run's directory. All networks share the
    targets, so they must take the same inputs and have the same number of classes; their losses may differ. The first
    module's `unpack` unpacks the batches.

    Args:
        modules: At least two modules, by name.
        attack: The attack that crafts the examples.
        max_samples: Number of examples, the first ones of the loader. None: all.

    Raises:
        ValueError: there are fewer than two modules, a name is empty or "clean", or `max_samples` is below 1; in test,
            the networks take different inputs or have different numbers of classes.
        TypeError: the attack is not an `Attack`, or a module is not an `AdversarialModule`.
    """

    def __init__(
        self, modules: Mapping[str, AdversarialModule], attack: Attack, max_samples: int | None = None
    ) -> None:
        super().__init__()
        check_names(list(modules))
        for name, module in modules.items():
            if not isinstance(module, AdversarialModule):
                raise TypeError(f"{name} is a {type(module).__name__}: give an AdversarialModule")
        if not isinstance(attack, Attack):
            raise TypeError(f"attack={attack!r} is a {type(attack).__name__}: give an Attack such as FGSM(eps=0.25)")
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"max_samples={max_samples!r}: give at least 1, or None for all")
        self.nets = dict(modules)
        self._nets = nn.ModuleList(modules.values())  # a name may contain a dot, a submodule's name may not
        self.attack = attack
        self.max_samples = max_samples
        self.checkpoints: dict[str, str] = {}
        self.warned_of: set[str] = set()  # networks that are known to have been trained on other data
        self.errors: list[dict[str, Any]] = []
        self.agreements: list[dict[str, Any]] = []

    @classmethod
    def of_checkpoints(
        cls,
        checkpoints: Sequence[str],
        attack: Attack,
        names: Sequence[str] | None = None,
        max_samples: int | None = None,
    ) -> Self:
        """Compare the modules in checkpoints that the command line made.

        Args:
            checkpoints: At least two paths.
            attack: The attack that crafts the examples.
            names: A name for each. None: the parts of the paths that differ.
            max_samples: Number of examples, the first ones. None: all.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a module cannot be rebuilt, there are fewer than two checkpoints, or there are not as many
                different names.
        """
        names = check_names(names_of(checkpoints, names))
        modules = [load_module(path).requires_grad_(False) for path in checkpoints]
        comparison = cls(dict(zip(names, modules, strict=True)), attack, max_samples)
        comparison.checkpoints = dict(zip(names, map(str, checkpoints), strict=True))
        return comparison

    def check(self, x: Tensor, num_classes: int | None = None) -> None:
        """Raise ValueError unless every network takes inputs like x, [B, ...], and has the same number of classes.

        Args:
            x: Inputs, on the networks' device.
            num_classes: Number of classes. None: that of the first network.
        """
        whose = "the data have" if num_classes is not None else f"{next(iter(self.nets))} has"
        for name, net in self.nets.items():
            try:
                with torch.no_grad():
                    found = net.loss_fn.probabilities(net(x)).shape[-1]
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                raise ValueError(
                    f"{name} does not accept the data's inputs, of shape {list(x.shape[1:])}: compare networks for the "
                    f"same data ({reason})"
                ) from None
            num_classes = found if num_classes is None else num_classes
            if found != num_classes:
                raise ValueError(
                    f"{name} has {found} classes, but {whose} {num_classes}: compare networks for the same data"
                )

    def on_test_epoch_start(self) -> None:
        """Start new counts."""
        self._matrix = TransferMatrix(list(self.nets), self.device)
        self._seen, self._shares = 0, ClassShares()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count one batch: clean, and crafted on every network."""
        x, y = self._unpacked(batch)
        if batch_idx == 0:
            self.check(x[:1])
            check_inputs(x, self.attack, sized=True)
            first = next(iter(self.nets.values()))
            self._classes = 0 if self.max_samples is None else number_of_classes(first(x[:1]), first.loss_fn)
            for name, net in self.nets.items():
                net.check_classes(self.trainer.test_dataloaders, self.trainer, warn=name not in self.warned_of)
                net.loss_fn.check(net(private_copy(net, x)), y)
        n = within_limit(self.max_samples, self.global_rank, self.trainer.world_size, self._seen, len(x))
        self._seen += len(x)
        if self._classes:
            self._shares.add(y, n, self._classes)
        if n == 0:
            return
        x, y = self._unpacked(batch, slice(n))
        self._judge(CLEAN, x, y)
        for name, net in self.nets.items():
            self._judge(name, self.attack(net, x, y, loss_fn=net.loss), y)

    def _unpacked(self, batch: Any, rows: slice | None = None) -> tuple[Tensor, Tensor]:
        """Let every network unpack the batch, as it may keep a second input, and return what the first one makes."""
        found = [unpacked(net, batch, rows) for net in self.nets.values()]
        return found[0]

    def on_test_epoch_end(self) -> None:
        """Log the errors."""
        self._shares.warn(f"max_samples={self.max_samples}")
        self.errors, self.agreements = self._matrix.errors(), self._matrix.agreements()
        for row in self.errors:
            # All processes have the same value; their mean avoids Lightning's warning.
            self.log(f"test/transfer/{row['crafted_on']}_to_{row['judged']}", row["error"], sync_dist=True)

    def on_test_end(self) -> None:
        """Print and write the results."""
        directory = run_folder(self.trainer)  # every process must ask
        if not self.trainer.is_global_zero:
            return
        Section("comparison", tables=self._tables()).show()
        if directory is not None and self.trainer.loggers:
            write_json(self.record(), directory, "metrics.json")
            self._draw(Path(directory))
            print(f"metrics.json and the pictures are in {directory}")

    def record(self) -> dict[str, Any]:
        """Return the results of the last test with everything needed to interpret them."""
        return {
            "networks": [self._described(name) for name in self.nets],
            "attack": self.attack.config(),
            "n": self.errors[0]["n"],
            "transfer": self.errors,
            "agreement": self.agreements,
            "seed": process_seed(),
            **circumstances(self.trainer, next(iter(self.nets.values()))),
        }

    def _judge(self, source: str, x: Tensor, y: Tensor) -> None:
        logits = {name: net(private_copy(net, x)) for name, net in self.nets.items()}
        predicted = {name: predicted_classes(net.loss_fn, logits[name]) for name, net in self.nets.items()}
        probabilities = {name: net.loss_fn.probabilities(logits[name]) for name, net in self.nets.items()}
        self._matrix.add(source, predicted, probabilities, y)

    def _described(self, name: str) -> dict[str, Any]:
        path = self.checkpoints.get(name)
        digest = None if path is None else sha256(Path(path))
        return {"name": name, "checkpoint": path, "sha256": digest, "loss": str(self.nets[name].loss_fn)}

    def _draw(self, directory: Path) -> None:
        """Write both matrices as pictures, and show them in TensorBoard."""
        directory.mkdir(parents=True, exist_ok=True)
        rows, columns = [CLEAN, *self.nets], list(self.nets)
        for figure, key, title in (
            ("error", "error", "Error"),
            ("confidence", "confidence_on_mistakes", "Mean confidence on mistakes"),
        ):
            values = [math.nan if row[key] is None else row[key] for row in self.errors]
            table = torch.tensor(values).view(len(rows), len(columns))
            title = f"{title}, {as_call(self.attack.config())}"
            picture = heat_map(table, rows, columns, title, row_label="examples crafted on", column_label="judged")
            png = png_of(picture)
            write_atomically(directory / f"transfer_{figure}.png", png)
            for logger in self.trainer.loggers:
                show_png(logger, f"transfer/{figure}", png)

    def _tables(self) -> list[Table]:
        names, k = list(self.nets), len(self.nets)
        under = f"{as_call(self.attack.config())}, n = {self.errors[0]['n']}, eval mode"
        rows = [self.errors[i : i + k] for i in range(0, len(self.errors), k)]
        matrices = [
            Table(title, ["crafted on", *names], [[row[0]["crafted_on"], *map(cell, row)] for row in rows])
            for title, cell in (
                (f"Error [95 %] in percent, {under}", _error),
                ("Mean confidence on mistakes in percent", lambda cell: percent(cell["confidence_on_mistakes"])),
            )
        ]
        every = k <= _MANY
        pairs = Table(
            "How often b predicts a's class: of all, where a errs, where both err"
            + ("" if every else " (metrics.json also has the pairs without the network crafted on)"),
            ["crafted on", "a", "b", "all", "a errs", "both err"],
            [_agreement(row) for row in self.agreements if every or row["crafted_on"] == row["a"]],
        )
        return [*matrices, pairs]


def _error(cell: dict[str, Any]) -> str:
    low, high = cell["interval"]
    return f"{100 * cell['error']:.2f}\n[{100 * low:.1f}, {100 * high:.1f}]"


def _agreement(row: dict[str, Any]) -> list[str]:
    shares = [f"{row['all']['share']:.1%}", _share(row["a_errs"]), _share(row["both_err"])]
    return [row["crafted_on"], row["a"], row["b"], *shares]


def _share(counted: dict[str, Any]) -> str:
    return "" if counted["share"] is None else f"{counted['share']:.1%} of {counted['n']}"
