"""The results of an evaluation: text, tables and pictures for the terminal and the report."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Cells of text under named columns; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    of_words: bool = False
    """Whether the cells are sentences rather than numbers."""

    def lines(self) -> list[str]:
        """Return each row as a line, with the names of the columns before its figures."""
        names = [column.partition(",")[0] for column in self.columns[1:]]
        named = []
        for first, *cells in self.rows:
            shown = cells if self.of_words else [f"{n} {cell}" for n, cell in zip(names, cells, strict=True) if cell]
            named.append((first, shown))
        lines = (f"{first}: {', '.join(cells)}" if cells else first for first, cells in named)
        return [" ".join(line.split("\n")) for line in lines]


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn only if it will be shown."""

    name: str
    """Name of its file, without a suffix, and in TensorBoard."""
    caption: str
    draw: Callable[[], Figure]


@dataclass
class Section:
    """The results of one evaluation."""

    title: str
    text: str = ""
    """What was evaluated: on how many examples, with which sizes."""
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences below the tables."""
    pictures: list[Picture] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows for the record's list of results."""
    record: dict[str, Any] = field(default_factory=dict)
    """Further keys of the record."""
    headline: str | None = None
    """The main figures in a sentence, which the report shows at its top."""
    verdict: str | None = None
    """A conclusion that the report shows at the section's top."""

    def show(self) -> None:
        """Print the tables and the notes. Where no terminal is, or a narrow one, each row is a line."""
        console = Console()
        for table in self.tables:
            shown = RichTable(title=table.title)
            for i, column in enumerate(table.columns):
                left = not i or table.of_words
                shown.add_column(column, justify="left" if left else "right", overflow="fold")
            for row in table.rows:
                shown.add_row(*row)
            # Sentences may be wrapped, numbers not.
            unlimited = console.options.update(max_width=10_000)
            needed = _LEAST if table.of_words else console.measure(shown, options=unlimited).maximum
            if console.is_terminal and console.width >= needed:
                console.print(shown)
            else:
                print("\n".join([table.title, *(f"  {line}" for line in table.lines())]))
        for note in self.notes:
            print(note)


_LEAST = 80


_DPI = 110


def png_of(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def percent(value: float | None) -> str:
    """Write a share in [0, 1] in percent, without the percent sign; an empty text for None."""
    return "" if value is None else f"{100 * value:.1f}"


def rate_with_interval(rate: float, interval: tuple[float, float] | list[float]) -> str:
    """Write a share with its interval in percent, without the percent sign."""
    return f"{100 * rate:.2f} [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
