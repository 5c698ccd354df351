"""The callbacks of the command line, each under a name."""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any, NamedTuple, cast

from lightning.pytorch import Callback

from adv_lightning.attacks.description import class_path
from adv_lightning.callbacks import (
    AdversarialCheckpoint,
    AdversarialEarlyStopping,
    ClassCentres,
    FinalMetrics,
    FiniteLoss,
    HiddenPerturbation,
    InputNoise,
    L1Penalty,
    MaxNorm,
    MomentumSchedule,
    RubbishTraining,
)
from adv_lightning.evaluation import (
    AdversarialPictures,
    AttackSuite,
    FirstLayer,
    Fooling,
    LogitSweep,
    Report,
    RubbishTest,
)


class Named(NamedTuple):
    """A callback that has a key of its own, `callbacks.NAME`.

    Args:
        name: The key.
        kind: The callback's class.
        help: What it does.
        on: Whether it acts unless it is switched off with null.
    """

    name: str
    kind: type[Callback]
    help: str
    on: bool = False


NAMED = (
    # In the order in which they act.
    Named("finite_loss", FiniteLoss, "Ends training when the loss is not finite.", on=True),
    Named("max_norm", MaxNorm, "Limits the norm of each unit's incoming weights."),
    Named("momentum", MomentumSchedule, "Changes the optimizer's momentum over the epochs."),
    Named("noise", InputNoise, "Trains on noise in place of the attack."),
    Named("hidden", HiddenPerturbation, "Perturbs hidden layers."),
    Named("l1", L1Penalty, "Adds an L1 penalty on chosen layers."),
    Named("rubbish", RubbishTraining, "Also trains on noise inputs that belong to no class."),
    Named("centres", ClassCentres, "Sets the centres of an RBF network to the class means."),
    Named("early_stopping", AdversarialEarlyStopping, "Stops when the adversarial validation error stops falling."),
    Named("checkpoint", AdversarialCheckpoint, "Keeps the best and the last checkpoint.", on=True),
    Named("pictures", AdversarialPictures, "Shows adversarial examples in TensorBoard.", on=True),
    Named("final_metrics", FinalMetrics, "Writes hyper-parameters with the final figures to TensorBoard.", on=True),
    Named("attack_suite", AttackSuite, "Evaluates under further attacks in test and validate.", on=True),
    Named("rubbish_test", RubbishTest, "Counts noise inputs that are assigned to a class."),
    Named("fooling", Fooling, "Makes fooling images of every class."),
    Named("logit_sweep", LogitSweep, "Follows the logits along the attack's direction."),
    Named("first_layer", FirstLayer, "Draws the filters of the first layer."),
    Named("report", Report, "Writes the findings of test and validate, on request with pictures.", on=True),
)

ON_BY_DEFAULT = {f"callbacks.{named.name}": {"class_path": class_path(named.kind)} for named in NAMED if named.on}
"""Defaults of the command line's parser."""

# A class with one argument for each, so that configuration files are merged key by key.
NamedCallbacks = make_dataclass("NamedCallbacks", [(named.name, named.kind | None, None) for named in NAMED])
NamedCallbacks.__module__ = __name__
NamedCallbacks.__doc__ = "\n".join(
    [
        "The project's callbacks. Null switches one off. Your own go to trainer.callbacks.\n\nArgs:",
        *(f"    {named.name}: {named.help}" for named in NAMED),
    ]
)


def callbacks_of(arguments: Any) -> list[Callback]:
    """Return the callbacks of a `NamedCallbacks` that are not switched off, in the order in which they act."""
    found = (getattr(arguments, named.name) for named in NAMED)
    return [cast(Callback, callback) for callback in found if callback is not None]
