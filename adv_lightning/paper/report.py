"""The paper's figures beside the measured ones: one row for each quantity, with its verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adv_lightning.paper.claims import Claim, Paper, Quantity, Run, Selector
from adv_lightning.paper.results import Figure, Results
from adv_lightning.paper.table import DASH, replace_table
from adv_lightning.paper.verdict import MEANING, Judgement, Verdict, judge

FULL, SHORT = "paper", "paper-short"
"""Markers of the whole table, and of README's part of it."""

_WIDE = 140
_COLUMNS = ("claim", "\u00a7", "quantity", "paper", "measured", "seeds", "n", "under", "clipped", "verdict", "remark")
_SHORT_COLUMNS = ("quantity", "paper", "measured", "seeds", "n", "under", "clipped", "verdict")
_COLOURS = {
    Verdict.REPRODUCED: "green",
    Verdict.BETTER: "green",
    Verdict.SAME_DIRECTION: "yellow",
    Verdict.DIFFERS: "red",
}


@dataclass(frozen=True)
class Row:
    """A quantity of a claim, with its measured figures and the run that measures it."""

    claim: Claim
    quantity: Quantity
    figures: Sequence[Figure]
    clipped: Sequence[Figure]
    judgement: Judgement
    run: Run | None

    def cells(self) -> dict[str, str]:
        """Return the row's text, by column."""
        found = self.figures
        published = DASH if self.quantity.published is None else _number(self.quantity.published)
        remark = [self.judgement.why, self.quantity.remark]
        if self.judgement.verdict is Verdict.NOT_RUN and self.run is not None:
            remark.insert(1, f"`python -m adv_lightning.paper run {self.run.name}`: {self.run.cost}")
        cells = (
            f"`{self.claim.id}`",
            self.claim.section,
            self.quantity.name,
            f"> {published}" if self.quantity.bound else published,
            _spread(self.quantity, found),
            _seeds(found),
            ", ".join(dict.fromkeys(str(figure.n) for figure in found if figure.n is not None)) or DASH,
            "; ".join(dict.fromkeys(figure.conditions for figure in found)) or DASH,
            _spread(self.quantity, self.clipped) + _fewer(self.clipped, found),
            str(self.judgement.verdict),
            " ".join(f"{part[0].upper()}{part[1:].rstrip('.')}." for part in remark if part),
        )
        return dict(zip(_COLUMNS, cells, strict=True))


def rows(paper: Paper, results: Results) -> Iterator[Row]:
    """Yield a row for each quantity of each claim, in the order of the claims."""
    for claim in paper.claims.values():
        for quantity in claim.quantities:
            figures = results.find(quantity.measured) if quantity.measured is not None else []
            clipped = results.clipped(quantity.measured) if quantity.measured is not None else []
            other = None if quantity.direction is None else quantity.direction.of
            if isinstance(other, Selector):
                compared = _values(quantity, results.find(other))
                other = mean(compared) if compared else None
            elif other is not None and quantity.unit == "%":
                other *= 100
            places = () if quantity.measured is None else quantity.measured.places
            run = next((run for run in paper.runs.values() if run.place in places), None)
            yield Row(claim, quantity, figures, clipped, judge(quantity, _values(quantity, figures), other), run)


def markdown(paper: Paper, results: Results) -> str:
    """Return the whole table, the meaning of the verdicts, and the reading of each claim, in Markdown."""
    made = list(rows(paper, results))
    parts = [_table(_COLUMNS, [row.cells() for row in made]), _legend(made), _readings(paper)]
    return "\n\n".join(parts)


def short(paper: Paper, results: Results) -> str:
    """Return the number of rows with each verdict, and the main rows, in Markdown."""
    made = list(rows(paper, results))
    shown = [row.cells() for row in made if row.quantity.main]
    return f"{_counts(made)}\n\n{_table(_SHORT_COLUMNS, shown)}"


def written(text: str, paper: Paper, results: Results) -> str:
    """Return the page `text` with new content between its markers.

    Raises:
        ValueError: the page has the markers of neither table.
    """
    made = [(name, make) for name, make in ((FULL, markdown), (SHORT, short)) if f"<!-- {name}: begin -->" in text]
    if not made:
        raise ValueError(f"the page has neither the marker <!-- {FULL}: begin --> nor <!-- {SHORT}: begin -->")
    for name, make in made:
        text = replace_table(text, make(paper, results), name)
    return text


def write(path: Path, paper: Paper, results: Results) -> None:
    """Write the table into a file with markers; see `written`."""
    path.write_text(written(path.read_text(encoding="utf-8"), paper, results), encoding="utf-8")


def show(made: Sequence[Row], console: Console) -> None:
    """Print rows as a table, with the numbers of verdicts below. Without a wide terminal each row is a line."""
    if not (console.is_terminal and console.width >= _WIDE):
        for row in made:
            cells = row.cells()
            claim, figure = cells["claim"].strip("`"), f"paper {cells['paper']}, measured {cells['measured']}"
            print(f"{claim}: {cells['quantity']}: {figure}: {cells['verdict']}")
        print(_counts(made))
        return
    table = Table(pad_edge=False)
    for name in ("claim", "quantity", "paper", "measured", "verdict"):
        table.add_column(name, no_wrap=name != "quantity", justify="right" if name in ("paper", "measured") else "left")
    for row in made:
        cells = {name: escape(cell) for name, cell in row.cells().items()}
        n = DASH if cells["n"] == DASH else f"n {cells['n']}"
        of = [part for part in (cells["under"], n, cells["seeds"]) if part != DASH]
        said = [
            f"{cells['quantity']}.",
            *([f"[dim]{', '.join(of)}.[/dim]"] if of else []),
            f"[dim]{cells['remark']}[/dim]",
        ]
        colour = _COLOURS.get(row.judgement.verdict, "default")
        measured = [cells["measured"], *([f"[dim]clipped {cells['clipped']}[/dim]"] if row.clipped else [])]
        table.add_row(
            f"{cells['claim'].strip('`')}\n[dim]\u00a7 {row.claim.section}[/dim]",
            "\n".join(said),
            cells["paper"],
            "\n".join(measured),
            f"[{colour}]{cells['verdict']}[/{colour}]",
        )
    console.print(table)
    console.print(_counts(made))


def _values(quantity: Quantity, figures: Sequence[Figure]) -> list[float]:
    return [figure.value * (100 if quantity.unit == "%" else 1) for figure in figures]


def _spread(quantity: Quantity, figures: Sequence[Figure]) -> str:
    """Return the mean and standard deviation over seeds, with the unit."""
    values = _values(quantity, figures)
    if not values:
        return DASH
    write = ("{:.3g}" if quantity.unit == "number" else "{:.2f}").format
    unit = {"%": " %", "px": " px", "number": ""}[quantity.unit]
    return write(mean(values)) + (f" \u00b1 {write(stdev(values))}" if len(values) > 1 else "") + unit


def _fewer(clipped: Sequence[Figure], found: Sequence[Figure]) -> str:
    """Return the seeds of the clipped figures if the others have different ones."""
    if not clipped or [one.seed for one in clipped] == [one.seed for one in found]:
        return ""
    return f", {_seeds(clipped)}"


def _seeds(figures: Sequence[Figure]) -> str:
    return f"{'seed' if len(figures) == 1 else 'seeds'} {', '.join(str(f.seed) for f in figures)}" if figures else DASH


def _number(value: float) -> str:
    return f"{value:.4g}"


def _counts(made: Sequence[Row]) -> str:
    counts = Counter(row.judgement.verdict for row in made)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    return f"{len(made)} rows: {told}."


def _legend(made: Sequence[Row]) -> str:
    return "\n".join([_counts(made), "", *(f"- *{verdict}*: {meaning}." for verdict, meaning in MEANING.items())])


def _readings(paper: Paper) -> str:
    lines = ["| claim | \u00a7 | what the paper says | the reading taken |", "|---|---|---|---|"]
    lines += [f"| `{c.id}` | {c.section} | {c.says} | {c.reading or DASH} |" for c in paper.claims.values()]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(row[name] for name in columns)} |" for row in rows)])
