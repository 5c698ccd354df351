"""AdversarialModule: any classifier, trained by a method and judged under attack.

Length: one class, of which the documented arguments are a third. What its hooks do is in `methods/`, `metrics/` and
`data/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from adv_lightning.attacks.base import Attack
from adv_lightning.attacks.constructor_arguments import KeepsArguments, outermost_frame
from adv_lightning.attacks.copying import copy_of
from adv_lightning.attacks.gradients import check_scalar
from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.attacks.plain_values import number
from adv_lightning.data.class_names import check_class_names, class_names
from adv_lightning.data.loader import BatchLoader
from adv_lightning.data.seeding import BatchSeeding, process_seed
from adv_lightning.losses import CallableLoss, Loss, as_loss
from adv_lightning.methods import checkpoint_format, stored_arguments
from adv_lightning.methods.base import Method, check_after_backward, check_objective, check_unused, replaced
from adv_lightning.methods.checkpoint_kinds import (
    MAPPING,
    check_kinds,
    check_loop,
    check_number,
    check_optimizer,
    check_scheduler,
)
from adv_lightning.methods.evaluated_batch import unpacked
from adv_lightning.methods.evaluation_step import EvaluationStep, judge
from adv_lightning.methods.foreign_checkpoints import misfit
from adv_lightning.methods.input_checks import (
    BatchCheck,
    check_attack,
    check_range,
    check_single_loader,
    number_of,
    pair,
    warn_of_rounding,
    warn_of_training_steps,
)
from adv_lightning.methods.mixed import Mixed, chosen
from adv_lightning.methods.monitors import check_monitors
from adv_lightning.methods.moved_paths import moved
from adv_lightning.methods.optimizers import build_optimizers, check_factories
from adv_lightning.methods.perturbation_sites import PerturbationSite
from adv_lightning.methods.two_pass_objective import Crafting, Masks, Objective, Passes, Statistics
from adv_lightning.metrics.charts import CHARTS
from adv_lightning.metrics.running_means import TrainingMeans
from adv_lightning.tensor_arguments import register

__all__ = ["AdversarialModule"]

_SHARDED = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


class AdversarialModule(LightningModule, KeepsArguments):
    """Trains any backbone on alpha * J(x) + (1 - alpha) * J(x_adv) and judges it under attack.

    The objective is that of Goodfellow et al. (2015), section 6, or that of another training `method`. Override
    `unpack` for batches that are not (x, y), `loss` for another J, `objective` for another mixture, `penalty` for
    terms outside the attack's gradient.

    Logs in training, every `log_every_n_steps`, `train/loss`, `train/clean_loss` and `train/adv_loss`: means since the
    last log, on the first process. With the suffix `_epoch`: means over the epoch and all processes. Logs in validation
    `val/loss`, `val/error`, `val/adv_error` and `val/adv_confidence`, the mean largest probability of the examples
    misclassified under attack (not logged if there are none). In test the same under `test/`. Rates lie in [0, 1]. An
    example whose logits are not finite is a mistake; `val/not_finite` is their number, logged if there are any.

    Invalid inputs and labels raise an error. Shapes and dtypes are checked in every batch, values in the first batch
    of an epoch or evaluation, since checking values waits for the device. With your own `loss_fn` or `loss`, training
    targets may be of any kind.

    Args:
        backbone: Any network that returns logits, [B, K].
        attack: Trains the network. Null: plain training, or what `method` has.
        alpha: Weight of the clean loss, in [0, 1]; the paper used 0.5. With `attack`, `crafting`, `masks` and
            `statistics` it is the short form of `method=Mixed(attack, alpha, ...)`.
        loss_fn: J, a `Loss` or any (logits, y) -> mean loss. Null: cross-entropy of a softmax.
        val_attack: Judges the network in validation and test. Null: what `attack` is at the start.
        optimizer: Parameters -> optimizer.
        lr_scheduler: Optimizer -> learning-rate scheduler. Null: constant.
        lr_interval: Whether the scheduler steps every "epoch" or every "step" of the optimizer.
        crafting: Mode in which the training attack's gradient is taken: "train" shares the clean pass, its
            dropout mask included; "eval" takes one more forward and backward pass, with dropout off.
        masks: "fresh" draws new dropout masks for the adversarial pass; "shared" reuses those of the clean pass.
        statistics: Which passes update BatchNorm's running statistics, and any other buffer that the network updates in
            train mode: "both", or only the "clean" one.
        val_attack_samples: Attack only this many examples of a validation epoch, the first ones. Null: all.
        val_attack_every_n_epochs: Attack only in every n-th epoch's validation.
        compiled: Compile the backbone in place, as `backbone.compile()` does; checkpoints keep their keys.
        channels_last: Hold the backbone's weights, and inputs [B, C, H, W], in torch's channels_last memory format,
            in which convolutions are faster on GPUs and on some CPUs.
        predict_attacked: `predict` returns probabilities under `val_attack` on the predicted labels, beside the
            clean ones.
        method: Training method, which brings its own attack. Null: `Mixed` of the arguments above.

    Raises:
        ValueError: alpha lies outside [0, 1], another argument has a value that is not allowed, or both `method` and
            an argument of its short form are given; in the first batch, a subclass's own `objective` ignores what a
            callback or the method was asked to do.
        TypeError: the attack is not an `Attack`, or the method is not a `Method`.

    Example:
        >>> from torch import nn
        >>> from adv_lightning import FGSM
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        >>> module = AdversarialModule(net, attack=FGSM(eps=0.25), alpha=0.5)
    """

    def __init__(
        self,
        backbone: nn.Module,
        attack: Attack | None = None,
        alpha: float = 0.5,
        loss_fn: Loss | nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
        val_attack: Attack | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        crafting: Crafting = "train",
        masks: Masks = "fresh",
        statistics: Statistics = "both",
        val_attack_samples: int | None = None,
        val_attack_every_n_epochs: int = 1,
        compiled: bool = False,
        channels_last: bool = False,
        predict_attacked: bool = False,
        method: Method | None = None,
    ) -> None:
        super().__init__()
        attack = stored_arguments.restored("attack", attack, Attack, "FGSM(eps=0.25)")
        val_attack = stored_arguments.restored("val_attack", val_attack, Attack, "FGSM(eps=0.25)")
        method = stored_arguments.restored("method", method, Method, "Mixed(FGSM(eps=0.25))")
        check_range("val_attack_every_n_epochs", val_attack_every_n_epochs, 1)
        if val_attack_samples is not None:
            check_range("val_attack_samples", val_attack_samples, 1)
        if not isinstance(backbone, nn.Module):
            raise TypeError(f"'backbone' is {backbone!r}, expected a network: an instance of nn.Module")
        warn_of_training_steps(backbone)
        if channels_last:
            backbone.to(memory_format=torch.channels_last)
        if compiled:
            backbone.compile()
        self.backbone = backbone
        self.compiled = compiled
        self.channels_last = channels_last
        self.method = chosen(method, Mixed(attack, alpha, crafting, masks, statistics))
        self.loss_fn = as_loss(loss_fn)
        trains = self.method.attack
        # A copy, so that a schedule of eps does not change what is validated.
        self.val_attack = copy_of(trains) if val_attack is None and trains is not None else val_attack
        factories: dict[str, Any] = {"optimizer": optimizer, "lr_scheduler": lr_scheduler}
        factories |= stored_arguments.restore(factories, ())
        check_factories(**factories)
        self.optimizer_factory = factories["optimizer"]
        self.lr_scheduler_factory = factories["lr_scheduler"]
        self.lr_interval = lr_interval
        self.val_attack_samples = val_attack_samples
        self.val_attack_every_n_epochs = val_attack_every_n_epochs
        self.predict_attacked = predict_attacked

        self.terms: list[Callable[[Tensor], Tensor]] = []  # x -> what is added to the objective, beside `penalty`
        self.evaluation = EvaluationStep()
        self.judged_examples: dict[str, str] = {}  # of the last validation in `fit`; see `EvaluationStep.examples`
        self.newest: tuple[Tensor | None, ...] = ()  # total, clean and adversarial loss of the last batch, detached
        self.means = TrainingMeans()
        self._to_check: dict[str, Any] = {}
        self.seeding = BatchSeeding()
        self._asked: set[str] = set()
        self._classes: list[str] | None = getattr(backbone, "class_names", None)
        self._learned_from: int | None = None  # the loader that gave the names
        self._has_saved = False
        self._fixed: frozenset[str] = frozenset()  # hyper-parameters that are no arguments of the constructor
        self._stored: dict[str, Any] = {}  # hyper-parameters as a checkpoint holds them
        self._left_out: dict[str, Any] = {}  # arguments that no checkpoint can hold
        self._save_description(method, val_attack)

    @property
    def copies_inputs(self) -> bool:
        """Whether `forward` gives the backbone a copy of x, so that it may work in place; an override need not."""
        return type(self).forward is AdversarialModule.forward

    # What a user may override

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, [B, K]."""
        if isinstance(x, Tensor):  # in a batch of its own kind, x may be something else
            x = private_copy(self.backbone, x)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.backbone(x)
        return logits

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return (x, y) of a batch of the data loader.

        An override may keep a second input, such as a mask, as an attribute that `forward` uses. It has a row for each
        example of the batch, so it does not go with attacks that ask about some examples only: PGD with restarts,
        Square.
        """
        return pair(batch)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return J, the mean loss over the batch."""
        return check_scalar(self.loss_fn(logits, y))

    def objective(self, x: Tensor, y: Tensor) -> Objective:
        """Return the loss of a batch and its parts, as the method computes them."""
        self._asked.add("method")
        return self.method.objective(self, x, y)

    def penalty(self) -> Tensor | None:
        """Return a scalar to add to the objective, outside the attack's gradient; None adds nothing."""
        return None

    def setup(self, stage: str) -> None:
        """Warn where the precision rounds the perturbation, and begin a new training."""
        self.seeding.restart()
        if self.val_attack is not None:
            warn_of_rounding(str(self.trainer.precision))

    # Training

    def on_train_start(self) -> None:
        """Let a resumed epoch's batches be counted in today's size, where the loader is the user's own.

        Raises:
            ValueError: something watches a figure that is not measured when it looks.
        """
        check_monitors(self.trainer, None if self.val_attack is None else self.val_attack_every_n_epochs)
        loader = self.trainer.train_dataloader
        if isinstance(loader, BatchLoader) and loader.trainer is None:
            loader.align(self.trainer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the objective of one batch."""
        trainer, first = self.trainer, batch_idx == 0
        new = self._start_batch(batch_idx)
        self._learn_classes()
        if first and new:
            self.means.start_epoch()
        x, y = self.unpack(batch)
        with BatchCheck(self, x, y, self.attack, self._known_loss(), first=first):
            objective = check_objective(self.objective(x, y), type(self).__name__)
        clean, adversarial = (
            None if part is None else part.detach() for part in (objective.clean, objective.adversarial)
        )
        if first:
            asked, passes = "method" in self._asked, "passes" in self._asked
            perturbed = adversarial is not None
            check_unused(self.method, type(self).__name__, asked=asked, passes=passes, perturbed=perturbed)
        total = objective.total
        for term in (self.penalty(), *(term(x) for term in self.terms)):
            total = total if term is None else total + term
        self.newest = (total.detach(), clean, adversarial)
        if not new:  # an optimizer such as LBFGS evaluates the batch again
            return total
        self.means.add(dict(zip(("loss", "clean_loss", "adv_loss"), self.newest, strict=True)), number_of(x, y))
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by the logger connector
        steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if every and steps and (trainer.global_step + 1) % every == 0:
            self.log_dict(self.means.take_interval())
        return total

    def on_after_backward(self) -> None:
        """Let the method act on the gradients."""
        self._asked.add("backward")
        self.method.after_backward(self)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        self.log_dict(self.means.of_epoch(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the scheduler from their factories.

        Raises:
            ValueError: no parameter requires a gradient, or the optimizer or scheduler refuses its arguments.
        """
        return build_optimizers(self.parameters(), self.optimizer_factory, self.lr_scheduler_factory, self.lr_interval)

    # Evaluation

    @property
    def judged_under_attack(self) -> bool:
        """Whether this epoch's validation attacks the network; outside of `fit`, every one does."""
        if self.val_attack is None or self.trainer.state.fn != TrainerFn.FITTING:
            return self.val_attack is not None
        return (self.current_epoch + 1) % self.val_attack_every_n_epochs == 0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> dict[str, Tensor]:
        """Count mistakes, clean and under attack; return `logits`, and `adv_logits` of the attacked examples.

        Raises:
            ValueError: there are several dataloaders.
        """
        check_single_loader(dataloader_idx, "validation")
        attack = self.val_attack if self.judged_under_attack else None
        return self._evaluate(batch, batch_idx, attack, self.val_attack_samples)

    def on_validation_epoch_end(self) -> None:
        """Log the rates."""
        self._log_rates("val")
        if not self.trainer.sanity_checking:
            self.evaluation.warn_of_shares()
            if self.trainer.state.fn == TrainerFn.FITTING:
                self.judged_examples = self.evaluation.examples()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> dict[str, Tensor]:
        """Count mistakes, clean and under attack; return `logits` and `adv_logits`.

        Raises:
            ValueError: there are several dataloaders.
        """
        check_single_loader(dataloader_idx, "test")
        return self._evaluate(batch, batch_idx, self.val_attack)

    def on_test_epoch_end(self) -> None:
        """Log the rates."""
        self._log_rates("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor | dict[str, Tensor]:
        """Return probabilities, [B, K]; with `predict_attacked` also those under attack."""
        if batch_idx == 0:
            self.check_classes(self.trainer.predict_dataloaders)
        x = batch if isinstance(batch, Tensor) else unpacked(self, batch)[0]
        logits = self(x)
        clean = self.loss_fn.probabilities(logits)
        if not self.predict_attacked or self.val_attack is None:
            return clean
        x_adv = self.val_attack(self, x, self.loss_fn.predict(logits), loss_fn=self.loss)
        return {"clean": clean, "attacked": self.loss_fn.probabilities(self(x_adv))}

    def judge(self, x: Tensor, y: Tensor, attack: Attack) -> tuple[Tensor, Tensor]:
        """Return logits, [B, K], of the inputs and of the inputs under attack."""
        return judge(self, x, y, attack)

    def _evaluate(
        self, batch: Any, batch_idx: int, attack: Attack | None, samples: int | None = None
    ) -> dict[str, Tensor]:
        if batch_idx == 0:
            self.check_classes(self.trainer.test_dataloaders if self.trainer.testing else self.trainer.val_dataloaders)
        x, y = unpacked(self, batch)
        rank, processes = self.global_rank, self.trainer.world_size
        trained = not (self.trainer.sanity_checking or self.training)
        counted: dict[str, Tensor] = self.evaluation(
            self,
            x,
            y,
            attack,
            part=partial(unpacked, self, batch),
            first=batch_idx == 0,
            samples=samples,
            rank=rank,
            processes=processes,
            trained=trained,
        )
        return counted

    def _log_rates(self, stage: str) -> None:
        measured = self.evaluation.metrics.measured()
        if "not_finite" in measured:
            number = int(measured["not_finite"].compute())
            rank_zero_warn(
                f"{stage}: the logits of {number} predictions are not finite. They count as mistakes. Look "
                "for weights that are not finite, a division by 0, or an overflow in half precision"
            )
        for name, metric in measured.items():
            self.log(f"{stage}/{name}", metric, prog_bar=name in ("error", "adv_error"))

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs, and describe or drop what safe loading refuses."""
        left_out = checkpoint_format.mark(
            checkpoint,
            kind=type(self),
            seed=process_seed(),
            loss=str(self.loss_fn),
            data=self._stored,
            fixed=self._fixed,
            left_out=self._left_out,
        )
        if not self._has_saved:
            stored_arguments.warn_of_left_out(left_out, type(self).__name__)
        self._has_saved = True
        checkpoint[checkpoint_format.CLASSES] = self._classes
        if self.trainer.world_size == 1 or self.trainer.state.status == TrainerStatus.RUNNING:
            checkpoint[checkpoint_format.MEANS] = self.all_gather(self.means.state_dict())

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Rebuild the module from a checkpoint, with torch's safe loading.

        The checkpoint of a subclass gives that subclass, if it is imported.

        Raises:
            ValueError: the file is not a checkpoint, or was cut short.
            TypeError: the module was built in Python, so the checkpoint cannot rebuild the backbone, and `backbone=` is
                not passed; the same for another argument that is no data and has no default.
        """
        kind, restored = checkpoint_format.stored_module(checkpoint_path, kwargs, cls)
        if kind is not cls:
            return kind.load_from_checkpoint(checkpoint_path, *args, **kwargs)
        register()
        kwargs = {"weights_only": True, **restored, **kwargs}
        with checkpoint_format.missing_backbone_named(checkpoint_path, cls.__name__):
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights, as torch does; the error about those that do not fit is one line."""
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise RuntimeError(misfit(self.state_dict(), state_dict, strict) or str(error)) from None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a newer format; take over the description of a module that the command line built."""
        checkpoint_format.upgrade(checkpoint, loss=str(self.loss_fn))
        self._classes, self._learned_from = checkpoint.get(checkpoint_format.CLASSES, self._classes), None
        if (trainer := self._attached_trainer()) is not None:
            if trainer.state.fn is not None:
                loop = f"{trainer.state.fn.value}_loop"
                if (loops := checkpoint.get("loops")) is not None:
                    check_kinds(loops, {loop: MAPPING}, "the loops", trainer.ckpt_path)
                    check_loop(loops[loop], getattr(trainer, loop).state_dict(), loop, trainer.ckpt_path)
                self._to_check = {key: checkpoint.get(key) or [] for key in ("optimizer_states", "lr_schedulers")}
            means = checkpoint.get(checkpoint_format.MEANS, {})
            self.means.load_state_dict(means, self.global_rank, trainer.world_size)
        stored = checkpoint.get(checkpoint_format.MODEL, {})
        if isinstance(stored.get("backbone"), dict) and "backbone" not in self.hparams:
            self._stored, self._fixed, self._left_out = {}, frozenset(), {}
            self.save_hyperparameters(moved(dict(stored)))
        elif "_class_path" not in stored:
            fixed = {} if trainer is not None else moved(checkpoint.get(checkpoint_format.FIXED, {}))
            stored_arguments.warn_of_other_arguments(stored, fixed, dict(self.hparams), AdversarialModule)

    # Names of classes

    @property
    def trained_classes(self) -> list[str] | None:
        """Names of the classes that the network was trained on, in the order of their labels. None: unknown."""
        return self._classes

    def check_classes(self, loaders: Any = None, trainer: Trainer | None = None, *, warn: bool = True) -> None:
        """Check that data has the classes that the network was trained on.

        Args:
            loaders: Loaders of the data, or their data sets.
            trainer: Who reads them, with its data module. None: the module's own.
            warn: Whether to warn if all classes have other names.

        Raises:
            ValueError: a class has another label there.
        """
        trainer = trainer or self.trainer
        if not trainer.sanity_checking:
            here = class_names(loaders, _datamodule(trainer))
            check_class_names(self._classes, here, type(self).__name__, warn=warn)

    def _learn_classes(self) -> None:
        """Take the names from the training data, and check them if the run is continued."""
        loaders = self.trainer.train_dataloader
        if self._learned_from != id(loaders):
            self._learned_from = id(loaders)
            if self.trainer.ckpt_path is not None:
                self.check_classes(loaders)
            self._classes = class_names(loaders, _datamodule(self.trainer)) or self._classes

    def on_fit_start(self) -> None:
        """Lay out TensorBoard's charts, and check what the optimizers are about to restore."""
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and self.global_rank == 0:
                logger.experiment.add_custom_scalars(CHARTS)
        found, self._to_check = self._to_check, {}
        if "optimizer_states" in found:
            check_number(found["optimizer_states"], self.trainer.optimizers, self.trainer.ckpt_path)
        optimizers = zip(found.get("optimizer_states", ()), self.trainer.optimizers, strict=False)
        schedulers = zip(found.get("lr_schedulers", ()), self.trainer.lr_scheduler_configs, strict=False)
        for state, optimizer in optimizers:
            check_optimizer(state, optimizer, self.trainer.ckpt_path)
        for state, config in schedulers:
            check_scheduler(state, config.scheduler, self.trainer.ckpt_path)

    # What the method may ask

    @property
    def gradient_scale(self) -> Tensor | None:
        """The GradScaler's factor, a scalar tensor, where fp16 has one."""
        trainer = self._attached_trainer()
        scaler = None if trainer is None else getattr(trainer.precision_plugin, "scaler", None)
        return None if scaler is None else scaler.scale(torch.ones((), device=self.device))

    @property
    def sharded(self) -> bool:
        """Whether parameters are spread over processes."""
        trainer = self._attached_trainer()
        return trainer is not None and isinstance(trainer.strategy, _SHARDED)

    # The method's arguments, under the names of the short form

    @property
    def attack(self) -> Attack | None:
        """What trains the network."""
        return self.method.attack

    @attack.setter
    def attack(self, attack: Attack | None) -> None:
        check_attack(attack)
        self.method.attack = attack

    @property
    def alpha(self) -> float:
        """Weight of the clean loss, where the method is `Mixed`."""
        return self._mixed("alpha").alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        check_range("alpha", alpha, 0, 1)
        self._mixed("alpha").alpha = alpha

    @property
    def passes(self) -> Passes:
        """How a training step runs the network, where the method is `Mixed`."""
        self._asked.add("passes")
        return self._mixed("passes").passes

    def _mixed(self, name: str) -> Mixed:
        # Not an AttributeError, which nn.Module would replace by one that says less.
        if not isinstance(self.method, Mixed):
            raise TypeError(f"{name} is an argument of Mixed, and this module trains with {type(self.method).__name__}")
        return self.method

    @property
    def sites(self) -> list[PerturbationSite]:
        """The places inside the network that a step perturbs beside the input, to be added to."""
        return self.method.sites_for("module.sites").layers

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module would register an attack as its own, past the property.
        if name == "attack":
            AdversarialModule.attack.fset(self, value)  # type: ignore[attr-defined]
            return
        if name == "method" and (former := getattr(self, "method", None)) is not None:
            value = replaced(former, value)
        super().__setattr__(name, number(value))

    # Own workings

    def _known_loss(self) -> Loss | None:
        """Return J if it is a `Loss`, which says what targets it takes; a user's own function may take any."""
        own = type(self).loss is AdversarialModule.loss
        return self.loss_fn if own and not isinstance(self.loss_fn, CallableLoss) else None

    def _start_batch(self, batch_idx: int) -> bool:
        """Seed the batch, and raise if the method could not act on the last one; return whether it is a new one."""
        if not self.seeding.started and isinstance(self.method, Mixed):
            if self.attack is None and self.val_attack is None:
                rank_zero_info("No attack: training is plain. Pass attack=, or val_attack= to judge plain training.")
            elif self.attack is not None and self.sharded:
                rank_zero_info("Parameters are sharded: the clean gradient is not replayed, and its graph is kept.")
        new = self.seeding.seed(self.current_epoch, batch_idx, self.global_rank, self.trainer.world_size, self.device)
        own_hook = type(self).on_after_backward is not AdversarialModule.on_after_backward
        if own_hook and batch_idx > 0 and "step" in self._asked and "backward" not in self._asked:
            check_after_backward(self.method, type(self).__name__)
        self._asked = {"step"}
        return new

    def _attached_trainer(self) -> Trainer | None:
        try:
            return None if self.fabric is not None else self.trainer
        except RuntimeError:  # Lightning's way to say that there is none
            return None

    def _save_description(self, method: Method | None, val_attack: Attack | None) -> None:
        """Save what rebuilds the module: everything if the command line built it, else all but the backbone."""
        if _given_hyperparameters.get() is not None:
            stored_arguments.forget_arguments(self)
            self.save_hyperparameters()
            return
        own = stored_arguments.own_arguments(self, AdversarialModule)
        training = checkpoint_format.training_arguments(self.method, short=method is None)
        settings = {
            **training,
            "val_attack": val_attack,
            "optimizer": self.optimizer_factory,
            "lr_scheduler": self.lr_scheduler_factory,
            "lr_interval": self.lr_interval,
            "val_attack_samples": self.val_attack_samples,
            "val_attack_every_n_epochs": self.val_attack_every_n_epochs,
            "compiled": self.compiled,
            "channels_last": self.channels_last,
            "predict_attacked": self.predict_attacked,
        }
        # A subclass may fix some of them, so only what its constructor takes is passed to it again.
        self._fixed = frozenset() if own is None else frozenset(settings.keys() - own.keys())
        self._stored, self._left_out = stored_arguments.split({**settings, **(own or {})})
        for name in self._fixed & self._left_out.keys():
            del self._left_out[name]
        # Lightning compares what it finds in the constructors' frames with this, which fails for arrays.
        self.save_hyperparameters(self._stored, frame=outermost_frame())


def _datamodule(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)  # set when it starts
