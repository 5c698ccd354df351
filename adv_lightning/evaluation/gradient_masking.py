"""Signs that gradients are masked: that they do not lead to the adversarial examples that are there.

The checks compare rows of results, `{name, attack, error, interval, n}`: `attack` is `{class_path, init_args}`, and
`interval` the 95% interval of the error. An attack is weaker than another only if its interval lies wholly below the
other's. Rows of different n judge different examples, which is worth a caution at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adv_lightning.attacks import FGSM, PGD, SignNoise, TargetedFGSM, UniformNoise
from adv_lightning.metrics import wilson_interval

Outcome = Literal["passed", "masked", "caution", "not run"]

_PGD = "PGD that can cross its ball (steps * step_size >= 2 * eps, or >= eps without a random start)"
_MaxNorm = FGSM | PGD | TargetedFGSM | SignNoise | UniformNoise
_MAX_NORM: dict[str, type[_MaxNorm]] = {k.__name__: k for k in (FGSM, PGD, TargetedFGSM, SignNoise, UniformNoise)}
_BLIND = {"SignNoise", "UniformNoise", "GaussianNoise", "TargetedFGSM"}  # they do not look at the label
_ATTACKING = {"PGD against FGSM", "more steps", "large eps", "transfer and noise"}
_SHOWN = ("eps", "std", "angle", "norm", "target", "steps", "step_size", "restarts", "bounds", "member")


@dataclass(frozen=True)
class Check:
    """The outcome of a check, and in one sentence the figures that it rests on, or which rows are missing."""

    name: str
    outcome: Outcome
    words: str


def masking_checks(
    rows: Sequence[Mapping[str, Any]],
    zero_gradients: tuple[int, int] | None = None,
    large_eps: float = 0.5,
    unit_range: bool = True,
) -> list[Check]:
    """Look for signs of masked gradients.

    These are iterated attacks weaker than single steps, white-box attacks weaker than those without gradients, and a
    large eps that does not reach all (Athalye et al. 2018, section 3.1), a transfer stronger than the white box (Tramer
    et al. 2018) and label leaking (Kurakin et al. 2017). Max-norm attacks are compared at the same eps and bounds. A
    PGD whose steps cannot cross its ball may be weak without masked gradients: it need not be strong.

    Args:
        rows: Rows of results, in any order. Without an attack only "clean" counts; n 0 and eps 0 are passed over.
        zero_gradients: Number of examples whose whole input gradient is zero, and number of examples. None: unknown.
        large_eps: From this eps on PGD should err on nearly all, as a share of the range of the pixels: of an attack's
            bounds, or else of [0, 1]. At half the range the ball of every input holds the same grey image.
        unit_range: Whether the inputs lie in [0, 1]. Where they do not, an attack without bounds has no known range.

    Returns:
        The seven checks, always in the same order.
    """
    known = [_Row(row, unit_range) for row in rows if row["n"] and (row["attack"] or row["name"] == "clean")]
    known = [row for row in known if row.eps != 0]
    return [
        _pgd_against_fgsm(known),
        _more_steps(known),
        _large_eps(known, large_eps),
        _growing_eps(known),
        _transfer_and_noise(known),
        _label_leaking(known),
        _zero_gradients(zero_gradients),
    ]


def verdict(checks: Sequence[Check]) -> str:
    """Return in one or two sentences what the checks say together."""
    passed, masked, cautions, absent = (
        [check.name for check in checks if check.outcome == outcome]
        for outcome in ("passed", "masked", "caution", "not run")
    )
    rest = f"; {len(absent)} not run" if absent else ""
    if masked:
        first = f"Masked gradients: {', '.join(masked)} ({len(masked)} of {len(checks)} checks{rest})."
    elif set(passed) & _ATTACKING:
        first = f"No sign of masked gradients in {len(passed)} check{'s' if len(passed) > 1 else ''}{rest}."
    else:
        first = f"It is not known whether gradients are masked: no check of attacks has passed{rest}."
    return first + (f" Caution: {', '.join(cautions)}." if cautions else "")


class _Row:
    """A row of results with what the checks ask of it.

    `attack` is the attack in the max norm, if it is one, with its defaults filled in; for an attack on a member or a
    transfer it is what crafts.
    """

    def __init__(self, row: Mapping[str, Any], unit_range: bool) -> None:
        self.config: Mapping[str, Any] = row["attack"] or {"class_path": "clean", "init_args": {}}
        self.error, self.n = float(row["error"]), int(row["n"])
        self.low, self.high = (float(end) for end in row["interval"])
        self.kind, core = _kind(self.config), _core(self.config)
        self.knows_label = self.kind != "clean" and _kind(core) not in _BLIND
        self.attack = _MAX_NORM[_kind(core)](**core["init_args"]) if _kind(core) in _MAX_NORM else None
        self.eps = float(f"{self.attack.eps:.9g}") if self.attack else math.nan  # which equals no other
        self.bounds = self.attack.bounds if self.attack else None
        self.share = self.eps / (self.bounds[1] - self.bounds[0] if self.bounds else 1 if unit_range else math.nan)

    def __str__(self) -> str:
        where = "on clean examples" if self.kind == "clean" else f"under {_describe(self.config)}"
        return f"{self.error:.2%} [{self.low:.2%}, {self.high:.2%}] {where}, n={self.n}"

    def shares_ball(self, other: _Row) -> bool:
        return self.eps == other.eps and self.bounds == other.bounds

    def weaker(self, other: _Row) -> bool:
        return self.high < other.low

    def can_cross(self) -> bool:
        """Whether its steps lead from where it starts to any point of the ball."""
        if not isinstance(pgd := self.attack, PGD):
            return True
        return pgd.steps * pgd.step_size >= (2 if pgd.random_start else 1) * pgd.eps * (1 - 1e-9)

    def walks_on(self, other: _Row) -> bool:
        """Whether it is the PGD of `other` in more and not longer steps, which go as far at least, and as often."""
        a, b = self.attack, other.attack
        if not (isinstance(a, PGD) and isinstance(b, PGD) and self.shares_ball(other)):
            return False
        farther = a.steps > b.steps and a.steps * a.step_size >= b.steps * b.step_size
        return farther and a.step_size <= b.step_size and a.random_start == b.random_start and a.restarts >= b.restarts


_Pair = tuple[_Row, _Row]
"""A row, and one whose error should not be higher."""


def _pgd_against_fgsm(rows: list[_Row]) -> Check:
    fgsm, pgd = _of(rows, "FGSM"), _able(rows, "PGD")
    words = "PGD is not clearly weaker than FGSM", "PGD is weaker than FGSM, which is but one such step"
    missing = _missing({"FGSM": fgsm, _PGD: pgd})
    return _compare("PGD against FGSM", _strongest(pgd, fgsm), words, missing)


def _more_steps(rows: list[_Row]) -> Check:
    pgd = _of(rows, "PGD")
    pairs = [(a, b) for a in pgd for b in pgd if a.walks_on(b)]
    words = "PGD of more steps is not clearly weaker", "PGD of more steps is weaker"
    missing = "There are no two rows of PGD at one eps and with the same bounds which differ in steps alone."
    return _compare("more steps", pairs, words, missing)


def _large_eps(rows: list[_Row], large_eps: float) -> Check:
    name, nearly_all = "large eps", 0.95
    large = [row for row in _able(rows, "PGD") if row.share >= large_eps]
    if not large:
        return Check(name, "not run", f"There is no row of {_PGD} at eps >= {large_eps:g} of a known range of pixels.")
    strongest = [max((b for b in large if a.shares_ball(b)), key=lambda row: row.high) for a in large]
    row = min(strongest, key=lambda row: row.high)
    masked = row.high < nearly_all
    words = f"At a large eps PGD's error is {'' if masked else 'not clearly '}below {nearly_all:.0%}: {row}."
    return Check(name, "masked" if masked else "passed", words)


def _growing_eps(rows: list[_Row]) -> Check:
    fgsm = _of(rows, "FGSM")
    pairs = [(a, b) for a in fgsm for b in fgsm if a.bounds == b.bounds and a.eps > b.eps]
    words = "FGSM is not clearly weaker at a larger eps", "FGSM is weaker at a larger eps: do not trust it on this net"
    missing = "There are no two rows of FGSM of different eps with the same bounds."
    return _compare("growing eps", pairs, words, missing, "caution")


def _transfer_and_noise(rows: list[_Row]) -> Check:
    white = _able(rows, "FGSM", "PGD")
    other = [row for row in _of(rows, "Transferred", "MemberAttack", "SignNoise", "UniformNoise") if row.attack]
    words = "The net's own gradient is not clearly weaker", "The net's own gradient is weaker than transfer or noise"
    missing = _missing({f"FGSM or {_PGD}": white, "transfer or noise in the max norm": other})
    return _compare("transfer and noise", _strongest(white, other), words, missing)


def _label_leaking(rows: list[_Row]) -> Check:
    clean, attacked = _of(rows, "clean"), [row for row in rows if row.knows_label]
    pairs = [(a, b) for a in attacked for b in [row for row in clean if row.n == a.n] or clean]
    words = "No attack clearly lowers the error", "The attack lowers the error, so it betrays the label (label leaking)"
    missing = _missing({"clean examples": clean, "an attack that knows the label": attacked})
    return _compare("label leaking", pairs, words, missing, "caution")


def _zero_gradients(counted: tuple[int, int] | None) -> Check:
    name, few = "zero gradients", 0.05
    if counted is None or counted[1] == 0:
        return Check(name, "not run", "It was not counted on how many examples the whole input gradient is zero.")
    (count, n), (low, high) = counted, wilson_interval(*counted)
    masked, figure = low > few, f"{count / n:.2%} [{low:.2%}, {high:.2%}], n={n}"
    words = f"The share of inputs without a gradient is {'' if masked else 'not clearly '}above {few:.0%}: {figure}."
    return Check(name, "masked" if masked else "passed", words)


def _compare(
    name: str, pairs: list[_Pair], words: tuple[str, str], missing: str, found: Literal["masked", "caution"] = "masked"
) -> Check:
    """Judge all pairs by the worst of them."""
    if not pairs:
        return Check(name, "not run", missing)
    a, b = max(pairs, key=lambda pair: (pair[0].weaker(pair[1]), pair[0].n == pair[1].n, pair[1].error - pair[0].error))
    figures = f"an error of {a}, against {b}"
    if not a.weaker(b):
        return Check(name, "passed", f"{words[0]}: {figures}.")
    if a.n != b.n:
        return Check(name, "caution", f"{words[1]}, though not on the same examples: {figures}.")
    return Check(name, found, f"{words[1]}: {figures}.")


def _strongest(strong: list[_Row], weak: list[_Row]) -> list[_Pair]:
    """Pair each weak row with the strongest of its ball: it is enough that one holds against it."""
    pairs = []
    for b in weak:
        rivals = [a for a in strong if a.shares_ball(b)]
        chosen = [a for a in rivals if not a.weaker(b)] or [a for a in rivals if a.n == b.n] or rivals
        pairs += [(max(chosen, key=lambda row: row.error), b)] if chosen else []
    return pairs


def _of(rows: list[_Row], *kinds: str) -> list[_Row]:
    return [row for row in rows if row.kind in kinds]


def _able(rows: list[_Row], *kinds: str) -> list[_Row]:
    return [row for row in _of(rows, *kinds) if row.can_cross()]


def _missing(sides: dict[str, list[_Row]]) -> str:
    absent = [name for name, rows in sides.items() if not rows]
    if absent:
        return f"There is no row of {', and none of '.join(absent)}."
    return f"There are rows of {' and of '.join(sides)}, but none of both at one eps and with the same bounds."


def _kind(config: Mapping[str, Any]) -> str:
    """Return the name of a class of this package; of one elsewhere, which may mean another norm, the whole path."""
    path = str(config["class_path"])
    return path.rpartition(".")[2] if path.startswith("adv_lightning.") else path


def _core(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the innermost of nested attacks, the one that crafts."""
    nested = config["init_args"].get("attack")
    return _core(nested) if isinstance(nested, Mapping) else config


def _describe(config: Mapping[str, Any]) -> str:
    arguments = config["init_args"]
    inner = arguments.get("attack")
    words = [_describe(inner)] if isinstance(inner, Mapping) else []
    shown = [(name, arguments[name]) for name in _SHOWN if arguments.get(name) is not None]
    words += [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown if (k, v) != ("restarts", 1)]
    return f"{config['class_path'].rpartition('.')[2]}({', '.join(words)})"
