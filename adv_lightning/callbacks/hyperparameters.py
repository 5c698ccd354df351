"""Hyper-parameters beside the final figures, in TensorBoard."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger


class FinalMetrics(Callback):
    """Writes the hyper-parameters with the last validation's figures, for TensorBoard's comparison of runs.

    The logger wants `default_hp_metric=False`, or TensorBoard shows a figure of -1 beside them.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if metrics and trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.log_hyperparams(dict(pl_module.hparams), metrics)
                    logger.save()
