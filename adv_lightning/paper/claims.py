"""The paper's numbers and statements as data, and the runs that reach them: `claims.yaml`, read and checked."""

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
    """What is to be run, for each of its seeds.

    Args:
        name: By which claims and other runs know it.
        do: `fit`, or what is done with the runs in `of`: `refit` them on all training images, `continue` from their
            last checkpoint, `test` them again, `compare` them under each other's examples, test the `ensemble` of all
            their seeds, or evaluate logistic regression's adversarial loss in `closed_form`.
        place: Its results lie in `<place>.json` and `<place>_seed<N>.json`.
        seeds: By default.
        cost: About how long it takes.
        of: Names of the runs that it is made of.
        names: What `compare` calls them; by default as they are called here.
        arguments: Of the command.
        quick: Whether it takes no longer than a minute.
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
    """Where a figure stands in results.

    Args:
        places: Of the files, as in `Run`; each seed's figure is that of the first place that has it.
        table: Part of the record.
        row: What the row of that table has, its attack's class under "attack" and that one's arguments under their
            names; the first such row counts. None: the part is no list of rows.
        field: The path from the row to the figure. In a table that is no list, from the table; without either, from
            the record.
    """

    places: tuple[str, ...]
    table: str = "test"
    row: Mapping[str, Any] | None = None
    field: tuple[str | int, ...] = ("error",)


@dataclass(frozen=True)
class Direction:
    """A comparison that the paper makes, and that must hold: `is` below or above `of`, which is `words`."""

    relation: Relation
    of: Selector | float
    words: str


@dataclass(frozen=True)
class Missing:
    """Why there is no figure yet."""

    kind: Kind
    why: str


@dataclass(frozen=True)
class Quantity:
    """One figure of a claim.

    Args:
        name: What is measured, of what.
        published: What the paper has, in `unit`. None: words, or nothing.
        bound: The paper says that the figure lies "above" `published`.
        unit: "%" of a share in [0, 1], or the figure's own.
        better: Whether a "lower" or a "higher" figure than the paper's is better. None: neither, as for an attack on a
            network that nobody defends.
        tolerance: In `unit`, for "not above" too, which has none by itself; None: the rule of `claims.yaml`.
        measured: Where the measured figure stands.
        direction: What must hold if the figure is not the paper's.
        missing: Why there is none, if there is none.
        picture: File that `figures` draws, if this is a picture.
        remark: What a reader should know.
        main: Whether README shows it.
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
    """What the paper says in one place.

    Args:
        id: Its name here.
        section: Of the paper; "-" if the paper does not ask.
        says: The claim in a sentence.
        quantities: Its figures.
        runs: Names of the runs that make them.
        reading: What was taken where the paper leaves it open.
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
        """Return what the content of a YAML file such as `claims.yaml` says.

        Raises:
            ValueError: a key or a value is unknown, a name is taken twice, or a run is named that is not there.
        """
        runs = {name: _run(name, values) for name, values in content.get("runs", {}).items()}
        claims = [_claim(values) for values in content["claims"]]
        twice = {claim.id for claim in claims if sum(claim.id == other.id for other in claims) > 1}
        if twice:
            raise ValueError(f"claims has {sorted(twice)} twice")
        for owner, named in [(run.name, run.of) for run in runs.values()] + [
            (claim.id, claim.runs) for claim in claims
        ]:
            for name in named:
                if name not in runs:
                    raise ValueError(f"{owner}: there is no run {name!r}{_near(name, runs)}")
        return cls({claim.id: claim for claim in claims}, runs)

    def claim(self, name: str) -> Claim:
        """Return the claim of that id.

        Raises:
            ValueError: there is none; the nearest ids are named.
        """
        if name not in self.claims:
            known = {**self.claims, **self.runs}
            raise ValueError(f"there is no claim or run {name!r}{_near(name, known)}; --list has all")
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
    """Return the values, lists as tuples, or say which key is unknown."""
    if unknown := values.keys() - {entry.name for entry in fields(kind)}:
        raise ValueError(f"{where}: unknown keys {sorted(unknown)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _run(name: str, values: Mapping[str, Any]) -> Run:
    run = Run(name, **_checked(Run, name, values))
    if run.do not in get_args(Protocol):
        raise ValueError(f"{name}: do is {run.do!r}: give one of {', '.join(get_args(Protocol))}")
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
            raise ValueError(f"{where}: missing is {given['missing'].kind!r}: give one of {', '.join(get_args(Kind))}")
    if "direction" in given:
        given["direction"] = _direction(where, given["direction"])
    if not given.keys() & {"measured", "missing", "picture"}:
        raise ValueError(f"{where}: say where it is measured, why it is missing, or which picture it is")
    return Quantity(**given)


def _selector(where: str, values: Mapping[str, Any]) -> Selector:
    return Selector(**_checked(Selector, where, values))


def _direction(where: str, values: Mapping[str, Any]) -> Direction:
    given = _checked(Direction, where, {"relation" if name == "is" else name: value for name, value in values.items()})
    if given["relation"] not in get_args(Relation):
        raise ValueError(f"{where}: is {given['relation']!r}: give one of {', '.join(get_args(Relation))}")
    of = given["of"]
    return Direction(**given | {"of": _selector(where, of) if isinstance(of, Mapping) else float(of)})
