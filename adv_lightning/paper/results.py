"""Figures from the tracked results, seed by seed.

Reads records as plain data and imports no torch, so that the report takes no time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adv_lightning.paper.claims import Selector


@dataclass(frozen=True)
class Figure:
    """The figure of one seed.

    Args:
        value: Value in the record; shares are in [0, 1].
        seed: Seed of the run.
        n: Number of examples, if the figure is about examples.
        conditions: Attack, data and mode of the measurement, in words.
    """

    value: float
    seed: int
    n: int | None
    conditions: str


class Results:
    """The metrics.json files of runs in a folder, by the names of their places.

    Args:
        folder: The folder, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, dict[int, dict[str, Any]]] = {}

    def records(self, place: str) -> dict[int, dict[str, Any]]:
        """Return the records of a place, by seed.

        Raises:
            ValueError: two files have the same seed.
        """
        if place not in self._records:
            found: dict[int, tuple[Path, dict[str, Any]]] = {}
            stem = Path(place).name
            for path in sorted((self.folder / place).parent.glob(f"{stem}*.json")):
                if not re.fullmatch(rf"{re.escape(stem)}(_seed\d+)?", path.stem):
                    continue
                record = json.loads(path.read_text(encoding="utf-8"))
                seed = int(record["seed"])
                if seed in found:
                    raise ValueError(f"{found[seed][0]} and {path} both have seed {seed}: remove one")
                found[seed] = path, record
            self._records[place] = {seed: record for seed, (_, record) in sorted(found.items())}
        return self._records[place]

    def find(self, selector: Selector) -> list[Figure]:
        """Return the selected figure of every seed that has one, in the order of the seeds."""
        found: dict[int, Figure] = {}
        for place in reversed(selector.places):
            for seed, record in self.records(place).items():
                figure = _figure(record, selector, seed)
                if figure is not None:
                    found[seed] = figure
        return [found[seed] for seed in sorted(found)]

    def clipped(self, selector: Selector) -> list[Figure]:
        """Return the same figures under the same attack clipped to [0, 1], if they were measured."""
        if selector.row is None or selector.row.get("bounds", 0) is not None:
            return []
        return self.find(replace(selector, row={**selector.row, "bounds": [0.0, 1.0]}))


def _figure(record: dict[str, Any], selector: Selector, seed: int) -> Figure | None:
    part: Any = record.get(selector.table)
    if selector.row is None:
        part = record if selector.table == "test" else part
    else:
        part = next((row for row in part or [] if selector.row.items() <= _flat(row).items()), None)
    row, parent = part, part
    for key in selector.field:
        parent = part
        try:
            part = part[key]
        except (KeyError, IndexError, TypeError):
            return None
    if not isinstance(part, int | float):
        return None
    n = parent.get("n") if isinstance(parent, dict) else None
    n = row.get("n") if n is None else n
    return Figure(float(part), seed, n, _conditions(record, row))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its attack's class and arguments beside its other values; the clean row has no attack."""
    attack = row.get("attack")
    if attack is None:
        return row
    return {**row, **(attack.get("init_args") or {}), "attack": _class(attack)}


def _conditions(record: dict[str, Any], row: Mapping[str, Any]) -> str:
    """Write what a figure was measured under: the attack with its size, norm and bounds, the data, and the mode."""
    # A comparison crafts all its examples with one attack, which is in the record itself.
    crafted = row.get("crafted_on", "clean") != "clean"
    attack = row.get("attack") or (record.get("attack") if crafted else None)
    parts = [attack_in_words(attack, row)] if attack else []
    if "rubbish" in row:
        parts.append("draws from " + row["rubbish"]["distribution"])
        step = row["rubbish"].get("step")
        parts += [f"then {attack_in_words(step['attack'])}"] if step else []
    if (record.get("data") or {}).get("test_part", "test") == "train":
        parts.append("training images")
    return ", ".join([*parts, f"{record.get('mode', 'eval')} mode"])


def attack_in_words(attack: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> str:
    """Write an attack in a few words, such as "PGD-40 eps 0.25, max norm, not clipped".

    Args:
        attack: Its description.
        facts: A row with the facts about it; the ball is used. Without facts, as in old records, the ball is read
            from the description. An attack without a ball is written as a call.
    """
    arguments = attack.get("init_args") or {}
    if isinstance(arguments.get("attack"), Mapping):
        return f"{_class(attack)} of {attack_in_words(arguments['attack'], facts)}"
    ball = facts["ball"] if facts is not None and "ball" in facts else _ball(arguments)
    if ball is None:
        return f"{_class(attack)}({', '.join(f'{name}={value}' for name, value in arguments.items())})"
    steps = f"-{arguments['steps']}" if "steps" in arguments else ""
    norm = "max norm" if ball["norm"] == "Linf" else f"{ball['norm']} norm"
    bounds = ball["bounds"]
    clipped = "not clipped" if bounds is None else f"clipped to [{bounds[0]:g}, {bounds[1]:g}]"
    return f"{_class(attack)}{steps} eps {ball['eps']:g}, {norm}, {clipped}"


def _ball(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ball of an attack that follows the conventions of `Attack.ball`; None if there is none."""
    norm = str(arguments.get("norm", "Linf")).capitalize()
    if "eps" not in arguments or norm not in ("Linf", "L2", "L1"):
        return None
    return {"norm": norm, "eps": arguments["eps"], "bounds": arguments.get("bounds")}


def _class(description: Mapping[str, Any]) -> str:
    return str(description["class_path"]).rpartition(".")[2]
