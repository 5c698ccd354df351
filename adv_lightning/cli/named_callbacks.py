"""The callbacks of the command line, each under a name."""

from __future__ import annotations

from lightning.pytorch import Callback

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


class NamedCallbacks:
    """The project's callbacks, each under a name, so that several configuration files merge.

    Null switches one off. Callbacks of your own go to trainer.callbacks.

    Args:
        early_stopping: Stops when the adversarial validation error stops falling.
        checkpoint: Keeps the best and the last checkpoint.
        finite_loss: Ends training when the loss is not finite.
        max_norm: Limits the norm of each unit's incoming weights.
        momentum: Moves the optimizer's momentum over the epochs.
        noise: Trains on noise in place of the attack.
        hidden: Perturbs hidden layers.
        l1: Adds an L1 penalty on chosen layers.
        rubbish: Trains on noise inputs that are of no class.
        centres: Moves the units of an RBF network to the means of their classes.
        pictures: Shows what the attack does, in TensorBoard.
        attack_suite: Judges under further attacks in test and validate.
        rubbish_test: Counts inputs of no class that are taken for one.
        fooling: Makes fooling images of every class.
        logit_sweep: Follows the logits along the line of the attack.
        first_layer: Draws the filters of the first layer.
        report: Writes what was found in test and validate, with pictures if asked to.
        final_metrics: Writes hyper-parameters with the final figures, in TensorBoard.
    """

    def __init__(
        self,
        early_stopping: AdversarialEarlyStopping | None = None,
        checkpoint: AdversarialCheckpoint | None = None,
        finite_loss: FiniteLoss | None = None,
        max_norm: MaxNorm | None = None,
        momentum: MomentumSchedule | None = None,
        noise: InputNoise | None = None,
        hidden: HiddenPerturbation | None = None,
        l1: L1Penalty | None = None,
        rubbish: RubbishTraining | None = None,
        centres: ClassCentres | None = None,
        pictures: AdversarialPictures | None = None,
        attack_suite: AttackSuite | None = None,
        rubbish_test: RubbishTest | None = None,
        fooling: Fooling | None = None,
        logit_sweep: LogitSweep | None = None,
        first_layer: FirstLayer | None = None,
        report: Report | None = None,
        final_metrics: FinalMetrics | None = None,
    ) -> None:
        watching = (early_stopping, checkpoint, pictures, final_metrics)
        judging = (attack_suite, rubbish_test, fooling, logit_sweep, first_layer, report)
        acting = (finite_loss, max_norm, momentum, noise, hidden, l1, rubbish, centres)
        self.callbacks: list[Callback] = [
            callback for callback in (*acting, *watching, *judging) if callback is not None
        ]


ON_BY_DEFAULT = {
    "checkpoint": AdversarialCheckpoint,
    "finite_loss": FiniteLoss,
    "pictures": AdversarialPictures,
    "attack_suite": AttackSuite,
    "report": Report,
    "final_metrics": FinalMetrics,
}
