"""AdversarialModule: any classifier, trained on the mixed loss and judged under attack."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from adv_lightning.attacks.base import Attack, SingleStepAttack, input_gradient
from adv_lightning.attacks.modes import eval_mode
from adv_lightning.checks import Look, pair
from adv_lightning.data.seeding import mix_seed, process_seed
from adv_lightning.figures import Figures, Means, share
from adv_lightning.losses import CallableLoss, Loss, as_loss
from adv_lightning.objective import Crafting, Masks, Objective, Passes, Statistics, adversarial_objective
from adv_lightning.rebuild import as_attack
from adv_lightning.sites import Crafted, InputSite, PerturbationSite

CHECKPOINT_FORMAT = 1
"""Version of what a checkpoint holds beside Lightning's own; raised when later code must tell them apart."""

_SHARDED = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)
_HALF = {"bf16-true": torch.bfloat16, "16-true": torch.float16}


class AdversarialModule(LightningModule):
    """Trains any backbone on alpha * J(x) + (1 - alpha) * J(x_adv) and judges it under attack.

    The objective is that of Goodfellow et al. (2015), section 6. Override `unpack` for batches that are not
    (x, y), `loss` for another J, `objective` for another mixture, `penalty` for terms outside the attack's
    gradient.

    Logs `train/loss`, `train/clean_loss` and `train/adv_loss` every `log_every_n_steps`, means since the last log on
    the first process, and with the suffix `_epoch` means over the epoch and all processes; in validation `val/loss`,
    `val/error`, `val/adv_error` and `val/adv_confidence`, the mean largest probability of the examples misclassified
    under attack (not logged where there are none); in test the same under `test/`. Rates lie in [0, 1].

    Wrong inputs and labels are refused: by shape and dtype in every batch, and by value in the first of an epoch or
    evaluation, as looking at values waits for the device. Targets of a `loss_fn` or `loss` of your own may be of any
    kind in training.

    Args:
        backbone: Any network that gives logits, [B, K].
        attack: Trains the network. Null: plain training.
        alpha: Weight of the clean loss, in [0, 1]; the paper used 0.5.
        loss_fn: J, a `Loss` or any (logits, y) -> mean loss. Null: cross-entropy of a softmax.
        val_attack: Judges the network in validation and test. Null: what `attack` is at the start.
        optimizer: Parameters -> optimizer.
        lr_scheduler: Optimizer -> learning-rate scheduler. Null: constant.
        lr_interval: Whether the scheduler steps every "epoch" or every "step" of the optimizer.
        crafting: Mode in which the training attack's gradient is taken: "train" shares the clean pass, its
            dropout mask included; "eval" takes one more forward and backward pass, with dropout off.
        masks: "fresh" lets the adversarial pass draw its own dropout masks; "shared" repeats the clean pass's.
        statistics: Passes that update BatchNorm's running statistics: "both", or the "clean" one alone.
        val_attack_samples: Attack only the first so many examples of a validation epoch. Null: all.
        val_attack_every_n_epochs: Attack only in every n-th epoch's validation.
        compiled: Compile the backbone in place, as `backbone.compile()` does; checkpoints keep their keys.
        channels_last: Hold the backbone's weights, and inputs [B, C, H, W], in torch's channels_last memory format,
            in which convolutions are faster on GPUs and on some CPUs.
        predict_attacked: `predict` returns probabilities under `val_attack` on the predicted labels, beside the
            clean ones.

    Raises:
        ValueError: alpha lies outside [0, 1], or a word or number is not among those allowed.
        TypeError: the attack is no `Attack`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        attack: Attack | None,
        alpha: float = 0.5,
        loss_fn: Loss | Callable[[Tensor, Tensor], Tensor] | None = None,
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
    ) -> None:
        super().__init__()
        attack, val_attack = as_attack(attack), as_attack(val_attack)
        _check_range("alpha", alpha, 0, 1)
        _check_range("val_attack_every_n_epochs", val_attack_every_n_epochs, 1)
        if val_attack_samples is not None:
            _check_range("val_attack_samples", val_attack_samples, 1)
        if channels_last:
            backbone.to(memory_format=torch.channels_last)
        if compiled:
            backbone.compile()
        self.backbone = backbone
        self.compiled = compiled
        self.channels_last = channels_last
        self.attack = attack
        self.alpha = alpha
        self.loss_fn = as_loss(loss_fn)
        self.val_attack = attack if val_attack is None else val_attack
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval
        self.passes = Passes(crafting, masks, statistics)
        self.val_attack_samples = val_attack_samples
        self.val_attack_every_n_epochs = val_attack_every_n_epochs
        self.predict_attacked = predict_attacked

        self.input_site = InputSite()  # a rule given to it takes the place of the attack
        self.sites: list[PerturbationSite] = [self.input_site]
        self.terms: list[Callable[[Tensor], Tensor]] = []  # x -> what is added to the objective, beside `penalty`
        self.figures = Figures()
        self.newest: tuple[Tensor | None, ...] = ()  # total, clean and adversarial loss of the last batch, detached
        self.means = {"interval": Means(), "epoch": Means()}  # go into checkpoints; a callback may add its own
        self._started = False
        self._seen = 0
        self._save_description(attack, val_attack)

    # What a user may override

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, [B, K]."""
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.backbone(x)
        return logits

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return (x, y) of a batch of the data loader."""
        return pair(batch)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return J, the mean loss over the batch."""
        return self.loss_fn(logits, y)

    def objective(self, x: Tensor, y: Tensor) -> Objective:
        """Return the mixed loss and its parts."""
        return adversarial_objective(
            self,
            x,
            y,
            loss_fn=self.loss,
            sites=self._sites_of(x, y),
            alpha=self.alpha,
            passes=self.passes,
            scale=self._gradient_scale(),
            replay=not self._sharded(),
        )

    def penalty(self) -> Tensor | None:
        """Return what is added to the objective outside the attack's gradient, a scalar; None for nothing."""
        return None

    def setup(self, stage: str) -> None:
        """Say where the precision rounds the perturbation."""
        precision = str(self.trainer.precision)
        if precision in _HALF and self.val_attack is not None:
            rank_zero_warn(
                f"precision {precision} holds the inputs in half precision: pixels in [0, 1], clean and under attack, "
                f"are rounded by up to {torch.finfo(_HALF[precision]).eps / 4:.1g}, so the perturbation is not exactly "
                f"the attack's; {precision.replace('true', 'mixed')} rounds neither"
            )

    # Training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the objective of one batch."""
        self._seed(batch_idx)
        if batch_idx == 0:
            self.means |= {"interval": Means(), "epoch": Means()}
        x, y = self.unpack(batch)
        with Look(self, x, y, self.attack, self._known_loss(), first=batch_idx == 0):
            objective = self.objective(x, y)
        total = objective.total
        for term in (self.penalty(), *(term(x) for term in self.terms)):
            total = total if term is None else total + term
        self.newest = (total.detach(), objective.clean, objective.adversarial)
        self.means["interval"].add(dict(zip(("loss", "clean_loss", "adv_loss"), self.newest, strict=True)))
        trainer = self.trainer
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by the logger connector
        steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if every and steps and (trainer.global_step + 1) % every == 0:
            self.means["epoch"].join(self.means["interval"])
            self.log_dict(self.means["interval"].named("train/{}"))
            self.means["interval"] = Means()
        return total

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        self.means["epoch"].join(self.means["interval"])
        self.log_dict(self.means["epoch"].named("train/{}_epoch"), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the scheduler from their factories.

        Raises:
            ValueError: no parameter requires a gradient, or the optimizer or scheduler refuses its arguments.
        """
        trainable = [p for p in self.parameters() if p.requires_grad]
        if not trainable:
            raise ValueError(
                "no parameter requires a gradient, so there is nothing to train. A callback such as Lightning's "
                "BackboneFinetuning freezes all of `backbone`, which here is the whole network: freeze layers of it "
                "with a BaseFinetuning of your own, or put the head beside it in a subclass with its own forward"
            )
        try:
            optimizer = self.optimizer_factory(trainable)
            scheduler = None if self.lr_scheduler_factory is None else self.lr_scheduler_factory(optimizer)
        except ValueError as error:
            raise ValueError(f"the optimizer or its scheduler cannot be made: {error}") from error
        if scheduler is None:
            return optimizer
        config = {"scheduler": scheduler, "interval": self.lr_interval}
        if hasattr(scheduler, "monitor"):
            config["monitor"] = scheduler.monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    # Evaluation

    @property
    def judged_under_attack(self) -> bool:
        """Whether this epoch's validation attacks the network; outside of `fit`, every one does."""
        if self.val_attack is None or self.trainer.state.fn != TrainerFn.FITTING:
            return self.val_attack is not None
        return (self.current_epoch + 1) % self.val_attack_every_n_epochs == 0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> dict[str, Tensor]:
        """Count mistakes, clean and under attack; return `logits` and, of those attacked, `adv_logits`.

        Raises:
            ValueError: there are several loaders.
        """
        _check_single(dataloader_idx, "validation")
        attack = self.val_attack if self.judged_under_attack else None
        return self._count(batch, batch_idx, attack, self.val_attack_samples)

    def on_validation_epoch_end(self) -> None:
        """Log the rates."""
        self._log_counts("val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> dict[str, Tensor]:
        """Count mistakes, clean and under attack; return `logits` and `adv_logits`.

        Raises:
            ValueError: there are several loaders.
        """
        _check_single(dataloader_idx, "test")
        return self._count(batch, batch_idx, self.val_attack)

    def on_test_epoch_end(self) -> None:
        """Log the rates."""
        self._log_counts("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor | dict[str, Tensor]:
        """Return probabilities, [B, K]; under attack as well if `predict_attacked`."""
        x = batch if isinstance(batch, Tensor) else self.unpack(batch)[0]
        logits = self(x)
        clean = self.loss_fn.probabilities(logits)
        if not self.predict_attacked or self.val_attack is None:
            return clean
        x_adv = self.val_attack(self, x, self.loss_fn.predict(logits), loss_fn=self.loss)
        return {"clean": clean, "attacked": self.loss_fn.probabilities(self(x_adv))}

    def judge(self, x: Tensor, y: Tensor, attack: Attack) -> tuple[Tensor, Tensor]:
        """Return logits, [B, K], of the inputs and of the inputs under attack, detached.

        A single-step attack's own clean pass gives the first.
        """
        if isinstance(attack, SingleStepAttack) and attack.needs_grad:
            clean = input_gradient(self, x, y, loss_fn=self.loss)
            logits, x_adv = clean.logits, attack.step(x, clean.grad)
        else:
            logits, x_adv = self(x), attack(self, x, y, loss_fn=self.loss)
        return logits, self(x_adv)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a run goes on with beside Lightning's own; describe or leave out what safe loading refuses."""
        checkpoint["adv_lightning_format"] = CHECKPOINT_FORMAT
        checkpoint["adv_lightning_seed"] = process_seed()
        checkpoint["adv_lightning_loss"] = str(self.loss_fn)
        if self.trainer.world_size == 1 or self.trainer.state.status == TrainerStatus.RUNNING:
            means = {name: means.state_dict() for name, means in self.means.items()}
            checkpoint["adv_lightning_means"] = self.all_gather(means)
        if self.CHECKPOINT_HYPER_PARAMS_KEY in checkpoint:
            stored = checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY]
            described = {k: v.config() if isinstance(v, Attack) else v for k, v in stored.items()}
            checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = {k: v for k, v in described.items() if not callable(v)}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Rebuild the module from a checkpoint, with torch's safe loading.

        Raises:
            ValueError: the file is no checkpoint, or was cut short.
            TypeError: the module was built in Python, so the checkpoint cannot rebuild the backbone, and none is
                passed as `backbone=`.
        """
        kwargs.setdefault("weights_only", True)
        if Path(str(checkpoint_path)).is_file() and not zipfile.is_zipfile(checkpoint_path):
            raise ValueError(f"{checkpoint_path}: this is no checkpoint, or one that was cut short")
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        except TypeError as error:
            if "'backbone'" not in str(error):
                raise
            raise TypeError(
                f"{checkpoint_path} holds a {cls.__name__} whose backbone was built in Python, so its weights are "
                f"there but not its code: pass the network, {cls.__name__}.load_from_checkpoint(path, backbone=net)"
            ) from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a format from the future; take over the whole description of a module that a command line built."""
        found = checkpoint.get("adv_lightning_format", CHECKPOINT_FORMAT)
        if found > CHECKPOINT_FORMAT:
            raise ValueError(
                f"the checkpoint has format {found}, and this adv_lightning reads up to {CHECKPOINT_FORMAT}: upgrade it"
            )
        loss = checkpoint.get("adv_lightning_loss", str(self.loss_fn))
        if loss != str(self.loss_fn):
            rank_zero_warn(
                f"the checkpoint was made with the loss {loss}, and this module has {self.loss_fn}: "
                "if that is not on purpose, pass loss_fn="
            )
        if self._trainer is not None:
            for name, state in checkpoint.get("adv_lightning_means", {}).items():
                self.means[name] = Means.of(state, self.global_rank, self.trainer.world_size)
        stored = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        if isinstance(stored.get("backbone"), dict) and "backbone" not in self.hparams:
            self.save_hyperparameters(dict(stored))

    # Own workings

    def _sites_of(self, x: Tensor, y: Tensor) -> list[PerturbationSite]:
        """Return the sites of this step, with the attack at the input if nothing else is there."""
        idle = self.input_site.rule is not None or self.input_site not in self.sites
        if self.attack is None or idle or self.alpha == 1:
            return self.sites
        own = InputSite(self.attack if isinstance(self.attack, SingleStepAttack) else self._crafted(self.attack, x, y))
        return [own if site is self.input_site else site for site in self.sites]

    def _crafted(self, attack: Attack, x: Tensor, y: Tensor) -> Crafted:
        """Let an attack craft in passes of its own. The module stays in train mode, which tells the attack so."""
        with ExitStack() as stack:
            if self.passes.crafting == "eval":
                for child in self.children():
                    stack.enter_context(eval_mode(child))
            return Crafted(attack(self, x, y, loss_fn=self.loss))

    def _known_loss(self) -> Loss | None:
        """Return J if it is a `Loss`, which says what targets it takes; one of the user's own takes what it likes."""
        own = type(self).loss is AdversarialModule.loss and type(self).objective is AdversarialModule.objective
        return self.loss_fn if own and not isinstance(self.loss_fn, CallableLoss) else None

    def _seed(self, batch_idx: int) -> None:
        """Give every process and batch random numbers of its own, which do not depend on those drawn before.

        So a resumed run draws what an uninterrupted one does, and processes, which Lightning seeds alike, differ.
        """
        seed, first = process_seed(), not self._started
        self._started = True
        if seed is not None:
            # The last number tells these draws from the data set's and the callbacks', seeded in the same way.
            own = mix_seed(seed, self.current_epoch, self.global_rank, batch_idx, 3)
            # Not torch.manual_seed, which costs a small net's step a tenth where CUDA is there but not in use.
            torch.default_generator.manual_seed(own)
            if self.device.type != "cpu":
                torch.get_device_module(self.device).manual_seed(own)
        elif first and self.trainer.world_size > 1:
            # A long stride, so that one seed's second process is not another seed's first.
            torch.manual_seed(torch.initial_seed() + 1_000_003 * self.global_rank)
        if first and self._sharded() and self.attack is not None:
            rank_zero_info("Parameters are sharded: the clean gradient is not replayed, and its graph is kept.")

    def _gradient_scale(self) -> Tensor | None:
        """Return the GradScaler's factor where fp16 has one."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None) if self._trainer is not None else None
        return None if scaler is None else scaler.scale(torch.ones((), device=self.device))

    def _sharded(self) -> bool:
        return self._trainer is not None and isinstance(self.trainer.strategy, _SHARDED)

    def _count(
        self, batch: Any, batch_idx: int, attack: Attack | None, samples: int | None = None
    ) -> dict[str, Tensor]:
        if batch_idx == 0:
            self._seen = 0
            self.figures.reset()
        x, y = self.unpack(batch)
        n = 0 if attack is None else share(samples, self.global_rank, self.trainer.world_size, self._seen, len(x))
        self._seen += len(x)
        with Look(self, x, y, attack, self.loss_fn, first=batch_idx == 0):
            if attack is None or n == 0:
                logits = self(x)
                adv_logits = logits[:0]
            else:
                logits, adv_logits = self.judge(x[:n], y[:n], attack)
                if n < len(x):
                    logits = torch.cat([logits, self(x[n:])])
        self.figures.add(logits, y, self.loss(logits, y), self.loss_fn)
        if attack is not None:
            self.figures.add_attacked(adv_logits, y[:n], self.loss_fn)
        return {"logits": logits, "adv_logits": adv_logits}

    def _log_counts(self, stage: str) -> None:
        for name, metric in self.figures.measured().items():
            self.log(f"{stage}/{name}", metric, prog_bar=name in ("error", "adv_error"))

    def _save_description(self, attack: Attack | None, val_attack: Attack | None) -> None:
        """Keep what rebuilds the module: all of it if a command line built it, else all but the backbone."""
        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters()
            return
        self.save_hyperparameters(
            {
                "attack": None if attack is None else attack.config(),
                "val_attack": None if val_attack is None else val_attack.config(),
                "alpha": self.alpha,
                "lr_interval": self.lr_interval,
                "crafting": self.passes.crafting,
                "masks": self.passes.masks,
                "statistics": self.passes.statistics,
                "val_attack_samples": self.val_attack_samples,
                "val_attack_every_n_epochs": self.val_attack_every_n_epochs,
                "compiled": self.compiled,
                "channels_last": self.channels_last,
                "predict_attacked": self.predict_attacked,
            }
        )


def _check_single(dataloader_idx: int | None, stage: str) -> None:
    # Lightning gives an index only where there are several loaders.
    if dataloader_idx is not None:
        raise ValueError(
            f"there are several {stage} loaders, and the module counts over one: judge each set in a call of its own, "
            "trainer.validate or trainer.test, or join them with torch.utils.data.ConcatDataset"
        )


def _check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not isinstance(value, Real) or not low <= value <= high:
        allowed = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name}={value!r}: give a number {allowed}")
