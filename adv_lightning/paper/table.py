"""README's table of results: `python -m adv_lightning.paper.table` prints it, `--write README.md` puts it there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

DASH = "-"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

PUBLISHED = {
    "mnist_maxout_plain": "clean 0.94, FGSM 89.4 (97.6)",
    "mnist_maxout_adv": "clean 0.84, FGSM 17.9 (81.4)",
}
"""Percent, from Goodfellow et al. (2015), sections 4 and 6, by the beginning of the run's name."""

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
    training, rows = record["training"], record["test"]
    clean = next(row for row in rows if row["attack"] is None)
    cells = [
        f"`{name}`",
        _net(record["model"].get("backbone")),
        _mixture(record["model"]) + _whole(record.get("data")),
        _shown(record["seed"]),
        _shown(training["epochs"]),
        DASH if training["seconds"] is None else f"{training['seconds'] / 60:.0f} min",
        str(clean["n"]),
        f"{clean['error']:.2%}",
        _judged(rows, "FGSM"),
        _judged(rows, "PGD", steps=40),
        next((said for run, said in PUBLISHED.items() if name.startswith(run)), ""),
    ]
    return f"| {' | '.join(cells)} |"


def _net(backbone: dict[str, Any] | None) -> str:
    if backbone is None:  # a module built in Python does not describe it
        return DASH
    arguments = backbone.get("init_args") or {}
    sizes = " x ".join(str(arguments[name]) for name in ("units", "pieces") if name in arguments)
    layers = f", {arguments['layers']} layers" if "layers" in arguments else ""
    return f"{_class(backbone)} {sizes}".strip() + layers


def _mixture(model: dict[str, Any]) -> str:
    attack = model["attack"]
    if attack is None or model["alpha"] == 1:
        return "clean only"
    return f"alpha {model['alpha']:g}, {_class(attack)}{_eps(attack, ' eps ')}"


def _whole(data: dict[str, Any] | None) -> str:
    return ", no image kept for validation" if data is not None and data.get("val_size") == 0 else ""


def _judged(rows: list[dict[str, Any]], attack: str, **arguments: Any) -> str:
    """Return the figures of the first row under `attack` with these arguments."""
    for row in rows:
        found = row["attack"]
        if found and _class(found) == attack and arguments.items() <= found["init_args"].items():
            confidence = row["confidence_on_mistakes"]
            shown = "" if confidence is None else f" ({confidence:.1%})"
            return f"{row['error']:.2%}{shown}{_eps(found, ', eps ')}"
    return DASH


def _class(described: dict[str, Any]) -> str:
    return str(described["class_path"]).rsplit(".", 1)[-1]


def _eps(attack: dict[str, Any], before: str) -> str:
    eps = (attack.get("init_args") or {}).get("eps")
    return "" if eps is None else f"{before}{eps:g}" if isinstance(eps, int | float) else f"{before}{eps}"


def _shown(value: Any) -> str:
    return DASH if value is None else str(value)


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
