"""Hyper-parameters beside the final figures, in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams


class FinalMetrics(Callback):
    """Writes the hyper-parameters with the last validation's figures, for TensorBoard's comparison of runs.

    An object is a column of its class's name and one for each of its arguments: `attack` and `attack/eps`. What is
    None stays empty. The logger wants `default_hp_metric=False`, or TensorBoard shows a figure of -1 beside them.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = [name for name in trainer.callback_metrics if name.startswith("val/")]
        if not figures or not trainer.is_global_zero:
            return
        # A narrow window shows one figure: the error under attack.
        figures.sort(key=lambda name: name != "val/adv_error")
        columns = {"module": type(pl_module).__name__}
        for name, value in pl_module.hparams.items():
            if not name.startswith("_"):
                columns |= _columns(name, value)
        # Only the names of the figures: TensorBoard reads the values off the curves. The logger's own
        # `log_hyperparams` writes them once more, at step 0, at which TensorBoard drops all later points.
        summaries = hparams(columns, dict.fromkeys(figures, 0.0))  # type: ignore[no-untyped-call]  # torch leaves it so
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for summary in summaries:
                    logger.experiment.file_writer.add_summary(summary)


def _columns(name: str, value: Any) -> dict[str, Any]:
    """Return `{class_path, init_args}` as the class's name and a column `name/argument` for each argument."""
    if isinstance(value, Mapping) and "class_path" in value:
        columns = {name: value["class_path"].rpartition(".")[2]}
        for argument, setting in value.get("init_args", {}).items():
            columns |= _columns(f"{name}/{argument}", setting)
        return columns
    return {name: value if value is None or type(value) in (int, float) else str(value)}
