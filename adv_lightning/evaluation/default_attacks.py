"""The attacks that stand beside the module's own by default."""

from __future__ import annotations

import json
import math

from adv_lightning.attacks import EOTPGD, FGSM, PGD, Attack, Ball, SignNoise, Square
from adv_lightning.evaluation.tables import key_of

STEPS = 40
AVERAGED = "EOTPGD"
_MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_LARGE = 0.5  # of the range of the pixels


def max_norm_ball(attack: Attack | None) -> Ball | None:
    """Return the max-norm ball that contains an attack's result; None if there is none."""
    ball = None if attack is None else attack.ball()
    return ball if ball is not None and ball.norm == math.inf else None


def left_out(what: str, key: str) -> str:
    """Say that something is left out because no eps is known."""
    return (
        f"{what} is left out: the module's val_attack has no eps in the max norm. Set {key}, or an attack with an eps, "
        "such as --model.val_attack=FGSM --model.val_attack.eps=0.1."
    )


def default_attacks(own: Attack | None) -> dict[str, Attack]:
    """Return FGSM and PGD at the eps and bounds of the module's attack.

    One of them is left out if the module's attack is of the same class and takes at least as many steps. Without an
    eps in the max norm there are none.
    """
    ball = max_norm_ball(own)
    if own is None or ball is None:
        return {}
    found: dict[str, Attack] = {}
    for attack in (FGSM(ball.eps, ball.bounds), _pgd(ball.eps, ball.bounds)):
        if type(own) is type(attack) and (own.steps or 0) >= (attack.steps or 0):
            continue
        name = type(attack).__name__
        # The module's own attack has its row under the name of its class.
        found[f"{name}-{attack.steps}" if name == type(own).__name__ else name] = attack
    return found


def added_attacks(own: Attack | None, eps: list[float] | None, masking: bool) -> dict[str, Attack]:
    """Return FGSM and PGD over a range of eps, and the further attacks that the checks for masked gradients need.

    Args:
        own: The module's attack, which gives the bounds.
        eps: The range. None: none, or with `masking` a quarter to twice the eps of `own`.
        masking: Whether to add the attacks for the checks.
    """
    ball = max_norm_ball(own)
    size, bounds = (0.0, getattr(own, "bounds", None)) if ball is None else (ball.eps, ball.bounds)
    large = _LARGE * (1 if bounds is None else bounds[1] - bounds[0])
    if eps is None:
        eps = [factor * size for factor in _MULTIPLES] if masking and size else []
    digits = 4 if len({f"{each:.4g}" for each in eps}) == len(set(eps)) else 9
    added: dict[str, Attack] = {}
    for each in eps:
        added |= {
            f"FGSM {each:.{digits}g}": FGSM(each, bounds),
            f"PGD {each:.{digits}g}": _pgd(each, bounds),
        }
    if masking and size:
        added |= {
            # Its ten steps can cross the ball as well.
            f"PGD-10 {size:.4g}": PGD(size, step_size=size / 4, steps=10, bounds=bounds),
            f"PGD-{STEPS} {size:.4g}": _pgd(size, bounds),
            f"PGD {large:.4g}": _pgd(large, bounds),
            f"SignNoise {size:.4g}": SignNoise(size, bounds),
            f"Square {size:.4g}": Square(size, bounds=bounds),
            f"{AVERAGED} {size:.4g}": EOTPGD(size, step_size=size / 10, steps=STEPS, bounds=bounds),
        }
    return added


def _pgd(eps: float, bounds: tuple[float, float] | None) -> PGD:
    # Steps of eps / 10, not the default: the published tables were made with them, and they cross the ball twice.
    return PGD(eps, step_size=eps / 10, steps=STEPS, bounds=bounds)


def joined(chosen: dict[str, Attack], added: dict[str, Attack], judging: list[Attack]) -> dict[str, Attack]:
    """Return the chosen attacks, and those of the added ones that are not among them or among `judging`."""
    together = dict(chosen)
    known = {_text(attack) for attack in (*chosen.values(), *judging)}
    for name, attack in added.items():
        if _text(attack) not in known:
            known.add(_text(attack))
            while key_of(name) in map(key_of, together):
                name = f"{name} (added)"
            together[name] = attack
    return together


def what_is_missing(own: Attack | None) -> str:
    """Say why no attack stands beside the module's own."""
    if own is None:
        return (
            "No attack judged the network, so nothing is known about adversarial examples. Set one: "
            "--model.val_attack=FGSM --model.val_attack.eps=0.1"
        )
    return (
        f"Only {type(own).__name__} judged the network. It has no eps in the max norm, so FGSM and PGD of the same eps "
        "cannot stand beside it. Set further attacks in callbacks.attack_suite.attacks"
    )


def _text(attack: Attack) -> str:
    return json.dumps(attack.config(), default=str)
