"""The paper's numbers and statements as data, and the runs that reproduce them: reads and checks `claims.yaml`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self, get_args

import yaml

Protocol = Literal["fit", "refit", "continue", "test", "compare", "ensemble", "closed_form"]
Kind = Literal["not run", "not built"]
Relation = Literal["below", "above", "not above"]


@dataclass(frozen=True)
class Run:
    """A command to run, once for each seed.

    Args:
        name: Name in claims and other runs.
        do: `fit`, or an action on the runs in `of`: `refit` them on all training images, `continue` from their last
            checkpoint, `test` them again, `compare` them under each other's examples, test the `ensemble` of all their
            seeds, or evaluate logistic regression's adversarial loss in `closed_form`.
        place: The results are in `<place>.json` and `<place>_seed<N>.json`.
        seeds: Default seeds.
        cost: Approximate duration.
        of: Names of the runs that this one needs.
        names: Their names in `compare`; by default the names in `of`.
        arguments: Arguments of the command.
        quick: Whether it takes at most a minute.
    """

    name: str
    do: Protocol
    place: str
    seeds: tuple[int, ...]
    cost: str
    of: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    quick: bool = False


@dataclass(frozen=True)
class Selector:
    """Where a figure is in the results.

    Args:
        places: Places of the files, as in `Run`. Each seed's figure comes from the first place that has it.
        table: Part of the record.
        row: Values that the row must have: the attack's class under "attack", and the attack's arguments under their
            names. The first matching row counts. None: the part is not a list of rows.
        field: Path to the figure: from the row, or from the table if it is not a list.
    """

    places: tuple[str, ...]
    table: str = "test"
    row: Mapping[str, Any] | None = None
    field: tuple[str | int, ...] = ("error",)


@dataclass(frozen=True)
class Direction:
    """A comparison in the paper that must hold: the figure is below or above `of`, which `words` describes."""

    relation: Relation
    of: Selector | float
    words: str


@dataclass(frozen=True)
class Missing:
    """Why a figure is missing."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class Quantity:
    """One figure of a claim.

    Args:
        name: What is measured, and on what.
        published: The paper's figure, in `unit`. None: the paper has words, or nothing.
        bound: "above" if the paper says that the figure is above `published`.
        unit: "%" for a share in [0, 1], else the figure's own unit.
        better: Whether a "lower" or a "higher" figure than the paper's is better. None: neither, as for an attack on an
            undefended network.
        tolerance: Tolerance in `unit`, also for "not above", which has none by default. None: the rule of
            `claims.yaml`.
        measured: Where the measured figure is.
        direction: Comparison that must hold if the figure is not the paper's.
        missing: Why the figure is missing, if it is.
        picture: File that `figures` draws, if the quantity is a picture.
        remark: A remark for the reader.
        main: Whether README shows the figure.
    """

    name: str
    published: float | None = None
    bound: Literal["above"] | None = None
    unit: Literal["%", "px", "number"] = "%"
    better: Literal["lower", "higher"] | None = None
    tolerance: float | None = None
    measured: Selector | None = None
    direction: Direction | None = None
    missing: Missing | None = None
    picture: str | None = None
    remark: str = ""
    main: bool = False

    @property
    def allowed(self) -> float:
        """The tolerance, in `unit`."""
        if self.tolerance is not None:
            return self.tolerance
        return 2.0 if self.published is not None and self.published >= 10 else 0.2


@dataclass(frozen=True)
class Claim:
    """One statement of the paper.

    Args:
        id: Name of the claim.
        section: Section of the paper; "-" if the question is not the paper's.
        says: The claim in a sentence.
        quantities: The claim's figures.
        runs: Names of the runs that produce them.
        reading: The choice that was made where the paper leaves one open.
    """

    id: str
    section: str
    says: str
    quantities: tuple[Quantity, ...]
    runs: tuple[str, ...] = ()
    reading: str = ""


@dataclass(frozen=True)
class Paper:
    """All claims and runs, by their names."""

    claims: Mapping[str, Claim]
    runs: Mapping[str, Run] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Build the claims and runs from the content of a YAML file such as `claims.yaml`.

        Raises:
            ValueError: a key or a value is unknown, an id is used twice, or a run that is named does not exist.
        """
        runs = {name: _run(name, values) for name, values in content.get("runs", {}).items()}
        claims = [_claim(values) for values in content["claims"]]
        twice = {claim.id for claim in claims if sum(claim.id == other.id for other in claims) > 1}
        if twice:
            raise ValueError(f"ids are used twice: {sorted(twice)}")
        for owner, named in [(run.name, run.of) for run in runs.values()] + [
            (claim.id, claim.runs) for claim in claims
        ]:
            for name in named:
                if name not in runs:
                    raise ValueError(f"{owner}: there is no run {name!r}{_near(name, runs)}")
        return cls({claim.id: claim for claim in claims}, runs)

    def claim(self, name: str) -> Claim:
        """Return the claim with this id.

        Raises:
            ValueError: there is no such claim; the message has the nearest ids.
        """
        if name not in self.claims:
            known = {**self.claims, **self.runs}
            raise ValueError(f"there is no claim or run {name!r}{_near(name, known)}; --list shows all")
        return self.claims[name]


@cache
def load() -> Paper:
    """Return the claims of the paper."""
    text = files("adv_lightning.paper").joinpath("claims.yaml").read_text(encoding="utf-8")
    return Paper.of(yaml.safe_load(text))


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    near += [other for other in known if other.startswith(name) and other not in near][: 3 - len(near)]
    return f": did you mean {', '.join(near)}?" if near else ""


def _checked(kind: type, where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, lists as tuples; raise ValueError if a key is unknown."""
    if unknown := values.keys() - {entry.name for entry in fields(kind)}:
        raise ValueError(f"{where}: unknown keys {sorted(unknown)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _run(name: str, values: Mapping[str, Any]) -> Run:
    run = Run(name, **_checked(Run, name, values))
    if run.do not in get_args(Protocol):
        raise ValueError(f"{name}: do={run.do!r}: give one of {', '.join(get_args(Protocol))}")
    return run


def _claim(values: Mapping[str, Any]) -> Claim:
    where = str(values.get("id"))
    quantities = tuple(_quantity(where, each) for each in values["quantities"])
    return Claim(**_checked(Claim, where, values) | {"quantities": quantities})


def _quantity(where: str, values: Mapping[str, Any]) -> Quantity:
    where = f"{where}, {values.get('name')}"
    given = _checked(Quantity, where, values)
    if "measured" in given:
        given["measured"] = _selector(where, given["measured"])
    if "missing" in given:
        given["missing"] = Missing(**_checked(Missing, where, given["missing"]))
        if given["missing"].kind not in get_args(Kind):
            raise ValueError(f"{where}: missing={given['missing'].kind!r}: give one of {', '.join(get_args(Kind))}")
    if "direction" in given:
        given["direction"] = _direction(where, given["direction"])
    if not given.keys() & {"measured", "missing", "picture"}:
        raise ValueError(f"{where}: give measured, missing or picture")
    return Quantity(**given)


def _selector(where: str, values: Mapping[str, Any]) -> Selector:
    return Selector(**_checked(Selector, where, values))


def _direction(where: str, values: Mapping[str, Any]) -> Direction:
    given = _checked(Direction, where, {"relation" if name == "is" else name: value for name, value in values.items()})
    if given["relation"] not in get_args(Relation):
        raise ValueError(f"{where}: is={given['relation']!r}: give one of {', '.join(get_args(Relation))}")
    of = given["of"]
    return Direction(**given | {"of": _selector(where, of) if isinstance(of, Mapping) else float(of)})
