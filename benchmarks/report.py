"""Tables, bars, and the document that they go to."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.timing import Run, Spread, figure

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
PACKAGES = ("torch", "lightning", "torchattacks", "foolbox", "adversarial-robustness-toolbox")


@dataclass(frozen=True)
class Bar:
    """What a measurement may be at most."""

    name: str
    measured: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether it is that; a measurement that is no number is not."""
        return self.measured <= self.limit


@dataclass
class Table:
    """A heading for each column, and rows."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """Write it as Markdown, what follows the first column to the right."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))


@dataclass
class Section:
    """What a group of measurements found."""

    title: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    raw: dict[str, Spread] = field(default_factory=dict)

    def markdown(self) -> str:
        """Write it as Markdown."""
        return "\n\n".join([f"### {self.title}", *(table.markdown() for table in self.tables), *self.notes])


def document(sections: Iterable[Section], run: Run) -> str:
    """Write everything as Markdown."""
    sections = list(sections)
    bars = Table(["bar", "measured", "limit", "met"])
    bars.rows += [
        (bar.name, figure(bar.measured), f"{bar.limit:.2f}", "yes" if bar.met else "**no**")
        for section in sections
        for bar in section.bars
    ]
    parts = [machine(run).markdown(), *(section.markdown() for section in sections)]
    return "\n\n".join(parts + (["### Bars", bars.markdown()] if bars.rows else []))


def machine(run: Run) -> Table:
    """Say what was measured on, and with what."""
    table = Table(["what", "which"])
    table.rows.append(("CPU", f"{_cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} of them used"))
    if run.device.type == "cuda":
        table.rows.append(("GPU", torch.cuda.get_device_name(run.device)))
    table.rows += [("OS", platform.platform(terse=True)), ("Python", platform.python_version())]
    return Table(table.columns, [*table.rows, *((name, installed(name)) for name in PACKAGES)])


def installed(name: str) -> str:
    """Return a package's version, or say that there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def around_markers(path: Path, first: str = BEGIN, last: str = END) -> tuple[str, str]:
    """Return what stands before and after the tables of a file, markers included.

    Raises:
        ValueError: the file has not each marker once, in order.
    """
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, begin, rest = content.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end or first in rest or last in head + tail:
        raise ValueError(f"{path}: put {first} and after it {last}, once each, where the tables shall stand")
    return head + begin, end + tail


def write_between_markers(path: Path, text: str, first: str = BEGIN, last: str = END) -> None:
    """Replace what stands between the two markers of a file, and nothing else; errors are those of the markers."""
    head, tail = around_markers(path, first, last)
    path.write_text(f"{head}\n{text}\n{tail}", encoding="utf-8")
