"""Hyper-parameters beside the final metrics, in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from adv_lightning.attacks.plain_values import readable


class FinalMetrics(Callback):
    """Writes the hyper-parameters with the last validation's metrics, so that TensorBoard can compare runs.

    An object becomes one column with the name of its class, and one for each of its arguments: `attack` and
    `attack/eps`. Arguments that are None stay empty. Give the logger `default_hp_metric=False`; otherwise TensorBoard
    also shows a metric of -1.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[FinalMetrics()])
    """

    changes_training = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = [name for name in trainer.callback_metrics if name.startswith("val/")]
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not figures or not loggers or not trainer.is_global_zero:
            return
        # A narrow window shows only the first metric: the error under attack.
        figures.sort(key=lambda name: name != "val/adv_error")
        columns = {"module": type(pl_module).__name__}
        for name, value in pl_module.hparams.items():
            if not name.startswith("_"):
                columns |= _columns(name, value)
        # Only the names matter: TensorBoard reads the values from the curves. The logger's own `log_hyperparams` would
        # write the values again at step 0, and TensorBoard would then drop all later points.
        from torch.utils.tensorboard.summary import hparams  # late: other loggers do not need tensorboard

        summaries = hparams(columns, dict.fromkeys(figures, 0.0))  # type: ignore[no-untyped-call]  # torch leaves it so
        for logger in loggers:
            for summary in summaries:
                logger.experiment.file_writer.add_summary(summary)


def _columns(name: str, value: Any) -> dict[str, Any]:
    """Return `{class_path, init_args}` as the class's name and a column `name/argument` for each argument."""
    if isinstance(value, Mapping) and "class_path" in value:
        columns = {name: value["class_path"].rpartition(".")[2]}
        for argument, setting in (value.get("init_args") or {}).items():
            columns |= _columns(f"{name}/{argument}", setting)
        return columns
    value = readable(value)
    return {name: value if value is None or type(value) in (int, float) else str(value)}
