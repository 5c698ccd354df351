"""Hyper-parameters beside the final figures, in TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams


class FinalMetrics(Callback):
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        params: dict[str, Any] = {"module": type(pl_module).__name__}
        for name, value in pl_module.hparams.items():
            if not name.startswith("_"):
                params |= _columns(name, value)
        names = [n for n in trainer.callback_metrics if n.startswith("val/")]
        experiment, *session = hparams(params, dict.fromkeys(names, 0))
        if os.environ.get("PROTO") == "A":
            session.insert(0, experiment)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                for summary in session:
                    logger.experiment.file_writer.add_summary(summary)


def _columns(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and "class_path" in value:
        columns = {name: str(value["class_path"]).rpartition(".")[2]}
        for argument, inner in (value.get("init_args") or {}).items():
            columns |= _columns(f"{name}/{argument}", inner)
        return columns
    return {name: value if value is None or type(value) in (int, float) else str(value)}
