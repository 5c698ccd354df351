"""Which attacks stand beside the module's own."""

from __future__ import annotations

import math

from adv_lightning.attacks import FGSM, PGD, Attack, SignNoise
from adv_lightning.attacks.external.base import ExternalAttack
from adv_lightning.evaluation.tables import key_of

STEPS = 40
_MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_LARGE = 0.5  # of the range of the pixels


def max_norm(attack: Attack | None) -> float | None:
    """Return the size of an attack in the max norm, as far as it has one."""
    if isinstance(attack, ExternalAttack):
        eps, p = attack.ball() or (None, math.inf)
        return eps if p == math.inf else None
    eps = getattr(attack, "eps", None)
    return eps if isinstance(eps, int | float) and getattr(attack, "norm", "Linf") in ("Linf", math.inf) else None


def left_out(what: str, key: str) -> str:
    """Say that something is left out, for want of a size."""
    return (
        f"{what} is left out: the module's val_attack has no eps in the max norm to take the size from. Give {key}, or "
        "an attack such as --model.val_attack=FGSM --model.val_attack.eps=0.1."
    )


def default_attacks(own: Attack | None) -> dict[str, Attack]:
    """Return FGSM and PGD at the eps and bounds of the module's attack, as far as they are not that attack."""
    eps, bounds = max_norm(own), getattr(own, "bounds", None)
    if eps is None:
        return {}
    attacks: dict[str, Attack] = {}
    if type(own) is not FGSM:
        attacks["FGSM"] = FGSM(eps, bounds)
    if not (type(own) is PGD and own.steps >= STEPS):
        attacks["PGD"] = PGD(eps, steps=STEPS, bounds=bounds)
    # The module's own attack has its row under the name of its class.
    steps = {"FGSM": 1, "PGD": STEPS}
    return {f"{name}-{steps[name]}" if name == type(own).__name__ else name: attack for name, attack in attacks.items()}


def added_attacks(own: Attack | None, eps: list[float] | None, masking: bool) -> dict[str, Attack]:
    """Return FGSM and PGD over a range of eps, and what the checks for masked gradients need beside them.

    Args:
        own: The module's attack, whose bounds they have.
        eps: The range. None: none, or with `masking` a quarter to twice the eps of `own`.
        masking: Whether there will be checks.
    """
    size, bounds = max_norm(own), getattr(own, "bounds", None)
    large = _LARGE * (1 if bounds is None else bounds[1] - bounds[0])
    if eps is None:
        eps = [factor * size for factor in _MULTIPLES] if masking and size else []
    digits = 4 if len({f"{each:.4g}" for each in eps}) == len(set(eps)) else 9
    added: dict[str, Attack] = {}
    for each in eps:
        added |= {
            f"FGSM {each:.{digits}g}": FGSM(each, bounds),
            f"PGD {each:.{digits}g}": PGD(each, steps=STEPS, bounds=bounds),
        }
    if masking and size:
        added |= {
            # In ten steps it can cross the ball, too.
            f"PGD-10 {size:.4g}": PGD(size, step_size=size / 4, steps=10, bounds=bounds),
            f"PGD-{STEPS} {size:.4g}": PGD(size, steps=STEPS, bounds=bounds),
            f"PGD {large:.4g}": PGD(large, steps=STEPS, bounds=bounds),
            f"SignNoise {size:.4g}": SignNoise(size, bounds),
        }
    return added


def joined(chosen: dict[str, Attack], added: dict[str, Attack], judging: list[Attack]) -> dict[str, Attack]:
    """Return the chosen attacks and of the added ones those that do not judge already."""
    together = dict(chosen)
    known = [attack.config() for attack in (*chosen.values(), *judging)]
    for name, attack in added.items():
        if attack.config() not in known:
            known.append(attack.config())
            while key_of(name) in map(key_of, together):
                name = f"{name} (added)"
            together[name] = attack
    return together


def what_is_missing(own: Attack | None) -> str:
    """Say why nothing stands beside the module's attack."""
    if own is None:
        return (
            "No attack judged the network, so nothing is known of adversarial examples. Name one: "
            "--model.val_attack=FGSM --model.val_attack.eps=0.1"
        )
    return (
        f"{type(own).__name__} alone judged the network, and has no eps in the max norm at which FGSM and PGD "
        "could stand beside it. Name attacks in callbacks.attack_suite.attacks"
    )
