"""The pictures of the attack suite: examples, curves over eps, confidences and classes of mistakes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adv_lightning.attacks import FGSM, PGD
from adv_lightning.evaluation import plots
from adv_lightning.evaluation.attack_counts import AttackCounts
from adv_lightning.evaluation.default_attacks import STEPS
from adv_lightning.evaluation.pictures import guess
from adv_lightning.evaluation.report_section import Picture
from adv_lightning.evaluation.tables import curve_of
from adv_lightning.module import AdversarialModule

_SHOWN = 6


def fooled_first(fooled: Tensor) -> Tensor:
    """Return the indices of a few examples, misclassified ones first; `fooled` is bool [B]."""
    return (~fooled).long().sort(stable=True).indices[:_SHOWN]


def examples(
    name: str, module: AdversarialModule, x: Tensor, x_adv: Tensor, y: Tensor, names: list[str] | None
) -> Picture:
    """Return a picture of a few images [B, C, H, W] under the attack `name`; `names` are those of the classes."""
    x, x_adv, y = (part.detach().clone() for part in (x, x_adv, y))
    guesses = [guess(module, inputs) for inputs in (x, x_adv)]
    return Picture(
        f"examples under {name}",
        f"Examples of the first batch, first those that {name} gets misclassified: the clean image, the perturbation, "
        "and the image under attack, with the predicted class and its probability. Wrong predictions are red.",
        lambda: plots.triptych(x, x_adv, y, guesses[0], guesses[1], names),
    )


def curves_over_eps(clean: dict[str, Any], rows: list[dict[str, Any]]) -> list[Picture]:
    """Return a picture of the error against eps under FGSM and PGD, if there are enough sizes."""
    kinds: list[type[FGSM] | type[PGD]] = [FGSM, PGD]
    found = {kind.__name__: curve_of(kind, clean, rows, STEPS) for kind in kinds}
    curves = {name: points for name, points in found.items() if len(points) > 2}
    caption = (
        f"Error with its 95 % interval, and confidence on mistakes, against eps on {clean['n']} examples. PGD takes "
        f"{STEPS} steps."
    )
    return [Picture("error against eps", caption, lambda: plots.error_against_eps(curves))] if curves else []


def distributions(
    rows: list[dict[str, Any]], judged: dict[str, AttackCounts], names: list[str] | None
) -> list[Picture]:
    """Return pictures of the confidences, and of the classes that mistakes predict, in the given rows."""
    histograms = {row["name"]: judged[row["name"]].histogram.compute().cpu() for row in rows}
    classes = {row["name"]: row["mistakes_by_class"] for row in rows if sum(row["mistakes_by_class"])}
    pictures = [
        Picture(
            "confidence",
            "The largest probability of correctly classified and of misclassified examples.",
            lambda: plots.confidence_histogram(histograms),
        )
    ]
    if classes:
        caption = "The classes predicted for misclassified examples. The dashed line shows equal shares."
        pictures.append(Picture("mistakes by class", caption, lambda: plots.class_bars(classes, names)))
    return pictures
