"""README's table of results: `python -m adv_lightning.paper.table` prints it, with `--write FILE` into a file."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DASH = "-"

PUBLISHED = {
    "mnist_maxout_plain": "clean 0.94, FGSM 89.4 (97.6)",
    "mnist_maxout_adv": "clean 0.84, FGSM 17.9 (81.4)",
}
"""In percent, from Goodfellow et al. (2015), sections 4 and 6, by the beginning of the run's name."""


def table(results: Path) -> str:
    """Return the Markdown table of all runs in `results`, a folder of `metrics.json` files named after the runs.

    Rare columns are left out if no run has them. Runs of several seeds, named `run`, `run_seed1` and so on, get a
    further row with mean and standard deviation.
    """
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    rows = [_row(name, record) for name, record in records.items()] + list(_means(records))
    columns = [title for title in _COLUMNS if title not in _RARE or any(row[title] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[title] for title in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---").replace("--- |", "---|")


def replace_table(text: str, new: str, name: str = "results") -> str:
    """Return `text` with the part between the two markers of a name replaced by `new`.

    Raises:
        ValueError: a marker is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise ValueError(f"the text must have both markers, {begin} and {end}")
    return f"{text[: text.index(begin)]}{begin}\n{new}\n{text[text.index(end) :]}"


_COLUMNS = (
    "run",
    "net",
    "trained on",
    "seed",
    "epochs",
    "time",
    "judged on",
    "n",
    "clean",
    "FGSM (conf.)",
    "PGD-40 (conf.)",
    "rubbish (conf.)",
    "mean activation",
    "paper",
)

_RARE = ("judged on", "rubbish (conf.)", "mean activation")


def _row(name: str, record: dict[str, Any]) -> dict[str, str]:
    training, rows, data = record["training"], record["test"], record.get("data") or {}
    clean = first_row(rows)
    assert clean is not None
    values = (
        f"`{name}`",
        _net(record["model"].get("backbone")),
        _mixture(record["model"], training.get("callbacks", {})) + _whole(data),
        _shown(record["seed"]),
        _shown(training["epochs"]),
        DASH if training["seconds"] is None else f"{training['seconds'] / 60:.0f} min",
        {"train": "training images", "val": "validation images"}.get(data.get("test_part", "test"), ""),
        str(clean["n"]),
        f"{clean['error']:.2%}",
        _judged(rows, "FGSM", clean["n"]),
        _judged(rows, "PGD", clean["n"], steps=40),
        next((_rate(row) for row in rows if "rubbish" in row), ""),
        _activation(record.get("logged") or {}),
        next((said for run, said in PUBLISHED.items() if name.startswith(run)), ""),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _means(records: dict[str, dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield a row of means for each run with several seeds, of figures with one eps and one n only."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, record in records.items():
        groups.setdefault(re.sub(r"_seed\d+$", "", name), []).append(record)
    for name, group in groups.items():
        if len(group) < 2:
            continue
        one = _row(name, group[0])
        spread = {
            "clean": [first_row(record["test"]) for record in group],
            "FGSM (conf.)": [first_row(record["test"], "FGSM") for record in group],
            "PGD-40 (conf.)": [first_row(record["test"], "PGD", steps=40) for record in group],
        }
        figures = {column: _spread([row for row in rows if row]) for column, rows in spread.items()}
        sizes = [value for record in group for value in _activations(record.get("logged") or {}).values()]
        yield dict.fromkeys(_COLUMNS, "") | {
            "run": f"`{name}`, {len(group)} seeds",
            "net": one["net"],
            "trained on": one["trained on"],
            "seed": ", ".join(_shown(record["seed"]) for record in group),
            "judged on": one["judged on"],
            "n": ", ".join(dict.fromkeys(_row(name, record)["n"] for record in group)),
            "mean activation": f"{mean(sizes):.3f} +- {stdev(sizes):.3f}" if len(sizes) == len(group) else "",
            "paper": one["paper"],
            **figures,
        }


def _spread(rows: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation of the errors, if they are of the same number of examples and attack."""
    if len(rows) < 2 or any((row["n"], _attack(row)) != (rows[0]["n"], _attack(rows[0])) for row in rows):
        return DASH
    errors = [row["error"] for row in rows]
    return f"{mean(errors):.2%} +- {stdev(errors):.2%}"


def _attack(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a row's attack, but for its seed."""
    arguments = (row.get("attack") or {}).get("init_args")
    return arguments and {name: value for name, value in arguments.items() if name != "seed"}


def _net(backbone: dict[str, Any] | None) -> str:
    if backbone is None:  # a module built in Python does not describe it
        return DASH
    arguments = backbone.get("init_args") or {}
    sizes = " x ".join(str(arguments[name]) for name in ("units", "pieces") if name in arguments)
    layers = f", {arguments['layers']} layers" if "layers" in arguments else ""
    return f"{_class(backbone)} {sizes}".strip() + layers


def _mixture(model: dict[str, Any], callbacks: dict[str, Any] | None) -> str:
    """Describe what the network was trained on, and what was added to its loss."""
    known, callbacks = callbacks is not None, callbacks or {}
    noise, hidden = _arguments(callbacks, "noise"), _arguments(callbacks, "hidden")
    attacks = [] if model["attack"] is None else [_named(model["attack"])]
    if noise:
        attacks = [_named(noise["noise"])]
    if hidden.get("rule"):
        attacks = attacks if hidden.get("perturb_input", True) else []
        relative = " (relative)" if hidden.get("relative") else ""
        attacks.append(f"{_named(hidden['rule'])}{relative} on {', '.join(hidden['layers'])}")
    alpha = model["alpha"]
    parts = [f"alpha {alpha:g}", *attacks] if attacks and alpha != 1 else ["clean only"]
    penalty, rubbish = _arguments(callbacks, "l1"), _arguments(callbacks, "rubbish")
    if penalty:
        parts.append(f"L1 {penalty['coefficient']:g} on {', '.join(penalty['layers'])}")
    if rubbish:
        parts.append("rubbish")
    if model.get("loss_fn"):
        parts.append(_class(model["loss_fn"]) if isinstance(model["loss_fn"], dict) else str(model["loss_fn"]))
    return ", ".join(parts if known else [*parts, "callbacks unknown"])


def _arguments(callbacks: dict[str, Any], name: str) -> dict[str, Any]:
    return (callbacks.get(name) or {}).get("init_args") or {}


def _named(attack: dict[str, Any]) -> str:
    """Return an attack's class and size."""
    arguments = attack.get("init_args") or {}
    sizes = [f" {name} {_number(arguments[name])}" for name in ("eps", "std", "angle") if name in arguments]
    return _class(attack) + "".join(sizes)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _activation(logged: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in _activations(logged).items())


def _activations(logged: dict[str, float]) -> dict[str, float]:
    return {name.partition("activation/")[2]: value for name, value in logged.items() if "activation/" in name}


def _whole(data: dict[str, Any]) -> str:
    return ", no image kept for validation" if data.get("val_size") == 0 else ""


def _judged(rows: list[dict[str, Any]], attack: str, n: int, **arguments: Any) -> str:
    """Return the figures of the first row with this attack and arguments, and the number of examples if not `n`."""
    row = first_row(rows, attack, **arguments)
    if row is None:
        return DASH
    eps = (row["attack"].get("init_args") or {}).get("eps")
    size = "" if eps is None else f", eps {_number(eps)}"
    return _rate(row) + size + ("" if row["n"] == n else f", n {row['n']}")


def first_row(rows: list[dict[str, Any]], attack: str | None = None, **arguments: Any) -> dict[str, Any] | None:
    """Return the first row with this attack and arguments; without an attack, the clean row."""
    for row in rows:
        found = row["attack"]
        if attack is None and found is None and "rubbish" not in row:
            return row
        if found and _class(found) == attack and arguments.items() <= found["init_args"].items():
            return row
    return None


def _rate(row: dict[str, Any]) -> str:
    confidence = row["confidence_on_mistakes"]
    return f"{row['error']:.2%}" + ("" if confidence is None else f" ({confidence:.1%})")


def _class(described: dict[str, Any]) -> str:
    return str(described["class_path"]).rsplit(".", 1)[-1]


def _shown(value: Any) -> str:
    return DASH if value is None else str(value)


def main() -> None:
    """Print the table, or write it into a file."""
    parser = argparse.ArgumentParser(
        prog="python -m adv_lightning.paper.table", description="README's table of results."
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs' metrics.json")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table between the two markers of FILE")
    options = parser.parse_args()
    new = table(options.results)
    if options.write is None:
        print(new)
    else:
        options.write.write_text(replace_table(options.write.read_text(encoding="utf-8"), new), encoding="utf-8")


if __name__ == "__main__":
    main()
