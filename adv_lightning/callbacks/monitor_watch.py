"""Whether the watched figure is new, and still of the same examples as the best one."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from adv_lightning.callbacks.monitor_key import has_validation

_VARYING = "varying"


class MonitorWatch:
    """Follows one metric through the validations of a run, for a callback that compares it with the best so far.

    Lightning keeps the last value of every metric, also after a validation that did not measure it.

    Attributes:
        examples: Fingerprint of the examples that the metric was measured on; "varying" if validations of one run have
            different ones, None if it is not known.
    """

    def __init__(self) -> None:
        self.examples: str | None = None
        self._before: Any = None
        self._ran = self._fresh = self._validated = False
        self._resumed = False

    def resume(self, examples: str | None) -> None:
        """Take over the examples of the run that goes on; the next figure is compared with them."""
        self.examples = examples
        self._resumed = True

    def start_validation(self, trainer: Trainer, monitor: str | None) -> None:
        """Remember the value from before a validation."""
        self._before = trainer.callback_metrics.get(monitor or "")

    def end_validation(self, trainer: Trainer, monitor: str | None) -> None:
        """Find out whether the validation measured the metric: Lightning makes a new tensor then."""
        self._ran = not trainer.sanity_checking
        if self._ran and trainer.callback_metrics.get(monitor or "") is not self._before:
            self._fresh = self._validated = True

    def is_stale(self, trainer: Trainer, monitor: str | None) -> bool:
        """Whether the metric is there, but was not measured since `take`."""
        validated = self._validated or (monitor or "").startswith("val/")
        return validated and monitor in trainer.callback_metrics and not self._fresh

    def is_fresh(self, monitor: str | None, pl_module: LightningModule, start_epoch: int = 0) -> bool:
        """Whether a validation has measured the metric since `take`, and the epoch counts.

        Epochs count from `start_epoch` on. A metric of training is always fresh. One that should have been measured
        but was not there at all counts as fresh, so that Lightning complains.
        """
        if pl_module.current_epoch < start_epoch or self.is_stale(pl_module.trainer, monitor):
            return False
        if not (monitor or "").startswith("val/"):
            return True
        attacked = not (monitor or "").startswith("val/adv") or getattr(pl_module, "judged_under_attack", True)
        return attacked and self._ran and has_validation(pl_module.trainer)

    def take(self) -> None:
        """Note that the figure was used, or its epoch is over: it is stale until it is measured again."""
        self._ran = self._fresh = False

    def judges_others(self, monitor: str | None, pl_module: LightningModule) -> bool:
        """Whether the first figure after a resume is of other examples than those before. Call it for fresh figures."""
        kind = "attacked" if (monitor or "").startswith("val/adv") else "clean"
        found = getattr(pl_module, "judged_examples", {}).get(kind) if (monitor or "").startswith("val/") else None
        resumed, self._resumed = self._resumed, False
        if not found or found == self.examples or self.examples == _VARYING:
            return False
        known = self.examples is not None
        # Within one run it is the loader's own choice to give other examples each time.
        self.examples = found if resumed or not known else _VARYING
        return resumed and known
