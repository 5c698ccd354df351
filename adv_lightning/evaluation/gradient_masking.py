"""Signs that gradients are masked: that they do not lead to adversarial examples that exist.

The checks compare rows of results, `{name, attack, error, interval, n}` with the attack's threat model (see
`Attack.threat_model`). `interval` is the 95% interval of the error. An attack counts as weaker than another only if its
interval lies wholly below the other's. Rows with different n judge different examples and give at most a caution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from adv_lightning.evaluation.dead_pixels import DeadPixels
from adv_lightning.evaluation.gradient_masking_counts import (
    Check,
    dead_pixels_check,
    missed_examples_check,
    share,
    zero_gradients_check,
)
from adv_lightning.evaluation.gradient_masking_row import MaskingRow
from adv_lightning.evaluation.missed_examples import MissedExamples

_SINGLE = "a single gradient step such as FGSM"
_ITERATED = (
    "an iterated attack such as PGD that can cross its ball (steps * step_size >= 2 * eps, or >= eps without a random "
    "start)"
)
_BLIND = "an attack without the network's gradient, such as transfer or noise"
_ATTACKING = {"PGD against FGSM", "more steps", "large eps", "transfer and noise", "missed examples"}
_NEARLY_ALL = 0.95


def masking_checks(
    rows: Sequence[Mapping[str, Any]],
    zero_gradients: tuple[int, int] | None = None,
    large_eps: float = 0.5,
    unit_range: bool = True,
    *,
    missed: MissedExamples | None = None,
    two_answers: tuple[int, int] | None = None,
    dead_pixels: DeadPixels | None = None,
    labels: Sequence[int] | None = None,
) -> list[Check]:
    """Look for signs of masked gradients.

    The signs are: iterated attacks weaker than single steps, white-box attacks weaker than those without gradients, a
    large eps that does not fool nearly all (Athalye et al. 2018, section 3.1), a transfer stronger than the white box
    (Tramer et al. 2018), and label leaking (Kurakin et al. 2017). Attacks are compared at the same norm, eps and
    bounds. An iterated attack whose steps cannot cross its ball may be weak without masked gradients, so it need not
    be strong.

    Args:
        rows: Rows of results, in any order. Of rows without an attack only "clean" counts; rows with n 0 or eps 0 are
            skipped. A check skips attacks if a fact that it needs is unknown.
        zero_gradients: Number of examples whose whole input gradient is zero, and number of examples. None: unknown.
        large_eps: From this eps on, an iterated attack should fool nearly all. It is a share of the range of the
            pixels: of the attack's bounds, or of [0, 1] without bounds. At half the range, the max-norm ball of every
            input contains the same grey image.
        unit_range: Whether the inputs lie in [0, 1]. If not, the range of an attack without bounds is unknown.
        missed: Examples that only an attack without the gradient fools.
        two_answers: Number of examples that the network answers differently the second time, and number of examples.
        dead_pixels: Pixels without a gradient.
        labels: Number of examples of each class. None: unknown, as in a record.

    Returns:
        The ten checks, always in the same order.
    """
    known = [MaskingRow(row, unit_range) for row in rows if row["n"] and (row["attack"] or row["name"] == "clean")]
    known = [row for row in known if row.ball is None or row.ball.eps != 0]
    return [
        _pgd_against_fgsm(known),
        _more_steps(known),
        _large_eps(known, large_eps, labels),
        _growing_eps(known),
        _transfer_and_noise(known),
        _label_leaking(known),
        zero_gradients_check(zero_gradients),
        missed_examples_check(missed),
        _randomness(known, two_answers),
        dead_pixels_check(dead_pixels),
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


_Pair = tuple[MaskingRow, MaskingRow]
"""A row, and one whose error should not be higher."""


def _pgd_against_fgsm(rows: list[MaskingRow]) -> Check:
    single, iterated = [row for row in rows if row.is_single_step], _able(rows)
    words = "The iterated attack is not clearly weaker than one step", "The iterated attack is weaker than one step"
    missing = _missing({_SINGLE: single, _ITERATED: iterated})
    return _compare("PGD against FGSM", _strongest(iterated, single), words, missing)


def _more_steps(rows: list[MaskingRow]) -> Check:
    iterated = [row for row in rows if row.is_iterated]
    pairs = [(a, b) for a in iterated for b in iterated if a.is_longer(b)]
    words = "More steps are not clearly weaker", "More steps are weaker"
    missing = "No two rows of an iterated attack such as PGD have one eps and the same bounds and differ only in steps."
    return _compare("more steps", pairs, words, missing)


def _large_eps(rows: list[MaskingRow], large_eps: float, labels: Sequence[int] | None) -> Check:
    name = "large eps"
    large = [row for row in _able(rows) if row.share >= large_eps]
    if not large:
        return Check(name, "not run", f"No row of {_ITERATED} has eps >= {large_eps:g} of a known range of pixels.")
    nearly_all = _NEARLY_ALL
    if labels is not None and any(labels):
        # The network may give the one image that all share the commonest class.
        nearly_all = min(nearly_all, 1 - max(labels) / sum(labels))
    if nearly_all == 0:
        return Check(name, "not run", "All examples are of one class, so one answer to all of them may be right.")
    strongest = [max((b for b in large if a.shares_ball(b)), key=lambda row: row.high) for a in large]
    row = min(strongest, key=lambda row: row.high)
    masked = row.high < nearly_all
    words = f"At a large eps the error is {'' if masked else 'not clearly '}below {nearly_all:.2%}: {row}."
    return Check(name, "masked" if masked else "passed", words)


def _growing_eps(rows: list[MaskingRow]) -> Check:
    single = [row for row in rows if row.is_single_step]
    pairs = [(a, b) for a in single for b in single if a.is_larger(b)]
    words = (
        "A single step is not clearly weaker at a larger eps",
        "A single step is weaker at a larger eps, so do not trust it on this network",
    )
    missing = f"No two rows of {_SINGLE} have the same bounds and different eps."
    return _compare("growing eps", pairs, words, missing, "caution")


def _transfer_and_noise(rows: list[MaskingRow]) -> Check:
    white = [row for row in rows if row.is_single_step or (row.is_iterated and row.can_cross)]
    blind = [row for row in rows if row.is_blind]
    words = "The network's own gradient is not clearly weaker", "The network's own gradient is weaker"
    missing = _missing({f"{_SINGLE} or {_ITERATED}": white, _BLIND: blind})
    return _compare("transfer and noise", _strongest(white, blind), words, missing)


def _label_leaking(rows: list[MaskingRow]) -> Check:
    clean, attacked = [row for row in rows if row.is_clean], [row for row in rows if row.threat_model.uses_label]
    pairs = [(a, b) for a in attacked for b in [row for row in clean if row.n == a.n] or clean]
    words = (
        "No attack clearly lowers the error",
        "The attack lowers the error, and gives the label away (label leaking)",
    )
    missing = _missing({"clean examples": clean, "an attack that uses the label": attacked})
    return _compare("label leaking", pairs, words, missing, "caution")


def _randomness(rows: list[MaskingRow], counted: tuple[int, int] | None) -> Check:
    name = "same input twice"
    if counted is None or counted[1] == 0:
        return Check(name, "not run", "The network was not asked twice about the same inputs.")
    _, figure = share(counted, 0)
    if counted[0] == 0:
        return Check(name, "passed", f"The network gives the same input the same answer: {figure} differ.")
    averaged, once = ([row for row in _able(rows) if row.averages is averages] for averages in (True, False))
    words = (
        f"The answers to the same input differ, so every figure varies from run to run: {figure} differ",
        f"The answers to the same input differ ({figure}), and PGD along one draw is weaker than along a mean",
    )
    if not (pairs := _strongest(once, averaged)):
        return Check(name, "caution", f"{words[0]}.")
    check = _compare(name, pairs, words, "")
    return Check(name, "caution", check.words) if check.outcome == "passed" else check


def _compare(
    name: str, pairs: list[_Pair], words: tuple[str, str], missing: str, found: Literal["masked", "caution"] = "masked"
) -> Check:
    """Judge all pairs by the worst of them."""
    if not pairs:
        return Check(name, "not run", missing)
    a, b = max(
        pairs, key=lambda pair: (pair[0].is_weaker(pair[1]), pair[0].n == pair[1].n, pair[1].error - pair[0].error)
    )
    figures = f"an error of {a}, against {b}"
    if not a.is_weaker(b):
        return Check(name, "passed", f"{words[0]}: {figures}.")
    if a.n != b.n:
        return Check(name, "caution", f"{words[1]}, though not on the same examples: {figures}.")
    return Check(name, found, f"{words[1]}: {figures}.")


def _strongest(strong: list[MaskingRow], weak: list[MaskingRow]) -> list[_Pair]:
    """Pair each weak row with the strongest row in its ball: one strong attack is enough."""
    pairs = []
    for b in weak:
        rivals = [a for a in strong if a.shares_ball(b)]
        chosen = [a for a in rivals if not a.is_weaker(b)] or [a for a in rivals if a.n == b.n] or rivals
        pairs += [(max(chosen, key=lambda row: row.error), b)] if chosen else []
    return pairs


def _able(rows: list[MaskingRow]) -> list[MaskingRow]:
    return [row for row in rows if row.is_iterated and row.can_cross]


def _missing(sides: dict[str, list[MaskingRow]]) -> str:
    absent = [name for name, rows in sides.items() if not rows]
    if absent:
        return f"There is no row of {', and none of '.join(absent)}."
    return f"There are rows of {' and of '.join(sides)}, but none of both with the same norm, eps and bounds."
