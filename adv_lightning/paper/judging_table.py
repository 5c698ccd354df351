"""Tables of docs/judging.md, written by `python -m adv_lightning.paper.judging_table --write docs/judging.md`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from adv_lightning.paper.table import first_row, replace_table

_ATTACKS: dict[str, dict[str, Any]] = {"FGSM": {}, "PGD": {"steps": 40}, "AutoAttack": {}}
_COLUMNS = ("net", "n", "eps", "clean", "FGSM", "PGD-40", "AutoAttack", "worst case", "rubbish", "filters", "gradients")


def judged(results: Path) -> str:
    """Return the Markdown table of the results of `test` with configs/evaluate.yaml and configs/autoattack.yaml.

    Args:
        results: Folder of the runs' metrics.json files, named after the networks.
    """
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for name, record in _records(results).items():
        rows = record["test"]
        n = min(row["n"] for row in rows if "rubbish" not in row)
        same = [row for row in rows if row["n"] == n]
        attacked = [first_row(same, attack, **arguments) for attack, arguments in _ATTACKS.items()]
        worst = next((row for row in same if "worst_of" in row), None)
        found = next(row for row in attacked if row)
        lines.append(
            (
                f"`{name}`",
                str(n),
                f"{found['attack']['init_args']['eps']:g}",
                _error(first_row(rows)),
                *map(_error, [*attacked, worst]),
                _error(next((row for row in rows if row["name"] == "rubbish"), None)),
                f"{record['first_layer']['median_spread_pixels']:.1f} px",
                record["masking"]["verdict"],
            )
        )
    return _markdown(lines)


def transfer(record: dict[str, Any]) -> str:
    """Return the Markdown table of the errors of `compare`, one row for each network that crafts."""
    names = [network["name"] for network in record["networks"]]
    cells = {(row["crafted_on"], row["judged"]): row for row in record["transfer"]}
    lines: list[tuple[str, ...]] = [("crafted on", *(f"error of `{name}`" for name in names))]
    lines += [(f"`{a}`" if a in names else a, *(_error(cells[a, b]) for b in names)) for a in ("clean", *names)]
    return _markdown(lines)


def agreement(record: dict[str, Any]) -> str:
    """Return the Markdown table of how often two networks agree, on examples crafted on the first network."""
    source = record["networks"][0]["name"]
    lines: list[tuple[str, ...]] = [("a", "b", "all", "where a errs", "where both err")]
    lines += [
        (f"`{row['a']}`", f"`{row['b']}`", *(_share(row[among]) for among in ("all", "a_errs", "both_err")))
        for row in record["agreement"]
        if row["crafted_on"] == source
    ]
    return _markdown(lines)


def written(text: str, results: Path) -> str:
    """Return the page `text` with new tables, from `judged` and `paper/compared.json` in `results`."""
    compared = json.loads((results / "paper" / "compared.json").read_text(encoding="utf-8"))
    for name, made in (
        ("judged", judged(results / "judged")),
        ("transfer", transfer(compared)),
        ("agreement", agreement(compared)),
    ):
        text = replace_table(text, made, name)
    return text


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def _error(row: dict[str, Any] | None) -> str:
    return "not run" if row is None else f"{row['error']:.2%} {_interval(row)}"


def _share(counted: dict[str, Any]) -> str:
    return "-" if counted["share"] is None else f"{counted['share']:.1%} {_interval(counted)} of {counted['n']}"


def _interval(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _markdown(lines: list[tuple[str, ...]]) -> str:
    head, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rows])


def main() -> None:
    """Write the tables into a file."""
    parser = argparse.ArgumentParser(prog="python -m adv_lightning.paper.judging_table", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with judged and paper")
    parser.add_argument("--write", type=Path, metavar="FILE", required=True, help="file with the markers")
    options = parser.parse_args()
    text = options.write.read_text(encoding="utf-8")
    options.write.write_text(written(text, options.results), encoding="utf-8")


if __name__ == "__main__":
    main()
