"""What the commands show in the terminal: the network as a table, and nothing of what does not concern their users."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from rich import get_console
from rich.table import Table

_NEEDLESS = ("💡 Tip: ", "Trainer already configured with model summary callbacks")
_DEPRECATED = (
    ".*isinstance.treespec, LeafSpec.. is deprecated",
    "torch.distributed.nn.functional.all_gather is deprecated",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out tips of other products, and deprecated calls inside Lightning, which its users cannot mend."""
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addFilter(_needed)
    with warnings.catch_warnings():
        for message in _DEPRECATED:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        finally:
            log.removeFilter(_needed)


def _needed(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NEEDLESS)


def default_summary(config: Mapping[str, Any], given: Sequence[Callback]) -> list[Callback]:
    """Return the project's model summary, or nothing if there is one already or none is wanted."""
    shown = config.get("enable_model_summary") is not False and not config.get("barebones")
    return [ParameterTable()] if shown and not any(isinstance(each, ModelSummary) for each in given) else []


class ParameterTable(RichModelSummary):
    """Lightning's model summary, with the layers of the network, and without those that have no parameters."""

    def __init__(self) -> None:
        super().__init__(max_depth=3)

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *others: Any,
        **kwargs: Any,
    ) -> None:
        columns = dict(summary_data)
        table = Table()
        for name in ("Name", "Type", "Params"):
            table.add_column(name, justify="right" if name == "Params" else "left")
        for row in zip(columns["Name"], columns["Type"], columns["Params"], strict=True):
            if row[-1].strip() != "0":
                table.add_row(*row)
        console = get_console()
        console.print(table)
        total, trained = (get_human_readable_count(int(n)).strip() for n in (total_parameters, trainable_parameters))
        console.print(f"{total} parameters, {'all' if trained == total else trained} trainable")
