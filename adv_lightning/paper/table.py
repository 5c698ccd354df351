"""README's table of results: `python -m adv_lightning.paper.table` prints it, `--write README.md` puts it there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

PUBLISHED = {
    "mnist_maxout_plain": "clean 0.94, FGSM 89.4 (97.6)",
    "mnist_maxout_adv": "clean 0.84, FGSM 17.9 (81.4)",
}
"""Percent, from Goodfellow et al. (2015), sections 4 and 6, by the name of the run."""

HEAD = (
    "| run | net | trained on | seed | epochs | time | n | clean | FGSM (conf.) | PGD-40 (conf.) | paper |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def table(results: Path) -> str:
    """Return the Markdown table of every run in `results`, a folder of `metrics.json` files under the runs' names."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    return "\n".join([*HEAD, *(_row(name, record) for name, record in records.items())])


def replace_table(text: str, new: str) -> str:
    """Return `text` with what stands between the two markers replaced by `new`.

    Raises:
        ValueError: a marker is missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the markers {BEGIN} and {END} are not both there")
    return f"{text[: text.index(BEGIN)]}{BEGIN}\n{new}\n{text[text.index(END) :]}"


def _row(name: str, record: dict[str, Any]) -> str:
    model, training = record["model"], record["training"]
    backbone = model["backbone"]["init_args"]
    rows = {row["name"]: row for row in record["test"]}
    eps = model["attack"]["init_args"]["eps"]
    mixture = "clean only" if model["alpha"] == 1 else f"alpha {model['alpha']:g}, FGSM eps {eps:g}"
    cells = [
        f"`{name}`",
        f"maxout {backbone['units']} x {backbone['pieces']}, {backbone['layers']} layers",
        mixture,
        str(record["seed"]),
        str(training["epochs"]),
        f"{training['seconds'] / 60:.0f} min",
        str(rows["clean"]["n"]),
        f"{rows['clean']['error']:.2%}",
        _judged(rows["FGSM"]),
        _judged(rows["PGD"]),
        PUBLISHED.get(name, ""),
    ]
    return f"| {' | '.join(cells)} |"


def _judged(row: dict[str, Any]) -> str:
    confidence = row["confidence_on_mistakes"]
    return f"{row['error']:.2%}" + ("" if confidence is None else f" ({confidence:.1%})")


def main() -> None:
    """Print the table, or write it into a file."""
    parser = argparse.ArgumentParser(
        prog="python -m adv_lightning.paper.table", description="README's table of results."
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs' metrics.json")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between FILE's two markers")
    options = parser.parse_args()
    new = table(options.results)
    if options.write is None:
        print(new)
    else:
        options.write.write_text(replace_table(options.write.read_text(encoding="utf-8"), new), encoding="utf-8")


if __name__ == "__main__":
    main()
