"""The record of an evaluation as files: JSON, pictures and an HTML page."""

from __future__ import annotations

import base64
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from adv_lightning.attacks.plain_values import jsonable
from adv_lightning.callbacks._layer_names import adversarial
from adv_lightning.callbacks.run_folder import run_folder, show_png
from adv_lightning.data.atomic_write import write_atomically
from adv_lightning.evaluation.attack_counts import rate
from adv_lightning.evaluation.attack_suite import AttackSuite
from adv_lightning.evaluation.evaluator import Evaluator
from adv_lightning.evaluation.metrics_record import evaluation_record, write_json
from adv_lightning.evaluation.report_section import Section, png_of
from adv_lightning.evaluation.row_threat_model import described
from adv_lightning.module import AdversarialModule

_LETTERS = 80  # of a file name, which contains an attack's name
_LINES = 60  # of a network's description


class Report(Callback):
    """Writes the results of `test` or `validate` into the run's directory.

    `metrics.json` contains every rate with n, interval and attack, and model, data, seed, checkpoint with its SHA-256,
    machine and versions. With `html`, the pictures are drawn: as PNG files in `pictures`, in TensorBoard, and in
    `report.html`, a page with tables, pictures and verdict that works offline. The results of `validate` are in
    `metrics_val.json`, `report_val.html` and `pictures_val`. Without a logger nothing is written.

    Args:
        html: Draw the pictures and write the page.
    """

    changes_training = False

    def __init__(self, html: bool = False) -> None:
        self.html = html

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._gather(trainer, adversarial(pl_module, self))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, adversarial(pl_module, self), "test")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._gather(trainer, adversarial(pl_module, self))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer, adversarial(pl_module, self), "val")

    def _gather(self, trainer: Trainer, module: AdversarialModule) -> None:
        self._directory = run_folder(trainer)  # every process must ask
        suite = any(isinstance(callback, AttackSuite) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        self._rows = [] if suite else _own_rows(module)

    def _write(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:
        if not trainer.is_global_zero or self._directory is None or not trainer.loggers:
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it late
        evaluators = [callback for callback in callbacks if isinstance(callback, Evaluator)]
        sections = [evaluator.section for evaluator in evaluators if evaluator.section is not None]
        rows = self._rows + [row for section in sections for row in section.rows]
        record = evaluation_record(trainer, module, stage, rows)
        for section in sections:
            record |= section.record
        directory, suffix = Path(self._directory), "" if stage == "test" else f"_{stage}"
        write_json(record, directory, f"metrics{suffix}.json")
        if self.html:
            pictures = _draw(sections, directory / f"pictures{suffix}", trainer)
            path = directory / f"report{suffix}.html"
            write_atomically(path, page(record, sections, pictures, str(module.backbone)).encode())
            print(f"The report is {path}")


def page(record: dict[str, Any], sections: list[Section], pictures: dict[str, bytes], network: str = "") -> str:
    """Return the report as one HTML page.

    Args:
        record: The content of metrics.json.
        sections: The sections, in the order of the page.
        pictures: PNG files, by the names of the sections' pictures.
        network: Description of the network, of any number of lines.
    """
    source = files("adv_lightning.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    encoded = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    settings = {name: yaml.safe_dump(_as_yaml(jsonable(record[name])), sort_keys=False) for name in ("model", "data")}
    return template.render(
        record=record,
        sections=sections,
        pictures=encoded,
        versions=versions,
        settings=settings,
        network="\n".join(network.splitlines()[:_LINES]),
        made=datetime.now().strftime("%d %B %Y"),
    )


def _as_yaml(value: Any) -> Any:
    """Return settings as YAML can write them, without Lightning's private keys."""
    if isinstance(value, dict):
        return {str(k): _as_yaml(v) for k, v in value.items() if not str(k).startswith("_") or k == "_class_path"}
    if isinstance(value, list | tuple):
        return [_as_yaml(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _own_rows(module: AdversarialModule) -> list[dict[str, Any]]:
    """Return the module's own counts as rows."""
    figures = module.evaluation.metrics
    rows = []
    if figures.error.update_called:
        rows.append({"name": "clean", "attack": None, **rate(figures.error), "confidence_on_mistakes": None})
    if figures.adv_error.update_called and module.val_attack is not None:
        confidence = figures.adv_confidence.compute()
        rows.append(
            {
                "name": type(module.val_attack).__name__,
                **described(module.val_attack),
                **rate(figures.adv_error),
                "confidence_on_mistakes": None if confidence.isnan() else confidence.item(),
            }
        )
    return rows


def _draw(sections: list[Section], folder: Path, trainer: Trainer) -> dict[str, bytes]:
    """Draw every picture into its own file and for every logger; return the files' contents by name."""
    for old in folder.glob("[0-9][0-9]_*.png"):  # of an earlier test, whose results are gone
        old.unlink()
    drawn: dict[str, bytes] = {}
    for i, picture in enumerate(picture for section in sections for picture in section.pictures):
        drawn[picture.name] = png_of(picture.draw())
        name = "".join(c if c.isalnum() or c in "-." else "_" for c in picture.name)
        write_atomically(folder / f"{i + 1:02}_{name[:_LETTERS]}.png", drawn[picture.name])
        for logger in trainer.loggers:
            show_png(logger, f"report/{picture.name}", drawn[picture.name], trainer.global_step)
    return drawn
