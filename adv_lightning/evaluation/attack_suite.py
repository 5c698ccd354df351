"""Further attacks in validate and test, so that no result stands alone."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from adv_lightning.attacks import EOTPGD, Attack
from adv_lightning.attacks.argument_checks import magnitude
from adv_lightning.attacks.model_mode import private_copy
from adv_lightning.data.sample_limit import ClassShares, within_limit
from adv_lightning.evaluation.attack_counts import AttackCounts, not_finite_named, number_of_classes, rate
from adv_lightning.evaluation.attack_pictures import curves_over_eps, distributions, examples, fooled_first
from adv_lightning.evaluation.default_attacks import (
    added_attacks,
    default_attacks,
    joined,
    max_norm_ball,
    what_is_missing,
)
from adv_lightning.evaluation.evaluator import Evaluator, announce, class_names
from adv_lightning.evaluation.gradient_masking import masking_checks, verdict
from adv_lightning.evaluation.gradient_masking_counts import Check
from adv_lightning.evaluation.masking_evidence import MaskingEvidence
from adv_lightning.evaluation.report_section import Picture, Section, Table
from adv_lightning.evaluation.tables import headline, key_of, mode, table_of
from adv_lightning.methods.evaluated_batch import unpacked
from adv_lightning.methods.input_checks import check_inputs
from adv_lightning.metrics import ErrorRate
from adv_lightning.module import AdversarialModule

_TAKEN = {"clean", "worst_case", "adv", "rubbish", "rubbish_uniform", "rubbish_attacked", ""}
"""Names of other figures that are logged as `test/<name>_error`."""


class AttackSuite(Evaluator):
    """Judges the network in validate and test under named attacks, beside the module's own, and prints them in a table.

    An error under FGSM says how the network does against FGSM and no more; the table puts a stronger attack beside
    it. A line says so if `attacks` is null and no attack can stand beside the module's own. The errors are logged as
    `test/<name>_error`, with blanks in a name as underscores; each has its 95 % interval (Wilson 1927). "Worst case"
    counts an example as an error if it is misclassified clean, under the module's attack or under one of `attacks`.
    The attacks of `eps` and `masking` have other sizes and do not count.

    Args:
        attacks: Attacks by name. Null: FGSM, and PGD with 40 steps, at the eps and bounds of the module's
            `val_attack`. Each is left out if that attack is of the same class and takes at least as many steps.
        max_samples: Number of examples to judge under these attacks, the first ones of the loader; the project's data
            modules give them in proportion to the classes. Null: all.
        eps: Judge also under FGSM and PGD with 40 steps at each of these sizes, numbers or fractions such as 8/255.
            Null: none, or with `masking` a quarter to twice the eps of the module's `val_attack`.
        masking: Add the attacks that show whether gradients are masked, and give a verdict (Athalye, Carlini & Wagner
            2018, section 3.1; Carlini et al. 2019, section 4): the eps above, PGD with 10 steps, PGD at half the range
            of the pixels, and noise.

    Raises:
        ValueError: `max_samples` is below 1, an eps is not a size, or an attack has a reserved name, such as "clean";
            in the evaluation, an input lies outside an attack's bounds.
    """

    def __init__(
        self,
        attacks: dict[str, Attack] | None = None,
        max_samples: int | None = None,
        eps: list[float | str] | None = None,
        masking: bool = False,
    ) -> None:
        if max_samples is not None and max_samples < 1:
            raise ValueError(f"max_samples={max_samples!r}: give at least 1, or null for all")
        keys = [key_of(name) for name in attacks or ()]
        if taken := [
            name for name, key in zip(attacks or (), keys, strict=True) if key in _TAKEN or keys.count(key) > 1
        ]:
            raise ValueError(f"attacks has the name {taken[0]!r}, which another result uses: choose another name")
        self.attacks = attacks
        self.max_samples = max_samples
        self.eps = None if eps is None else [magnitude("eps", size) for size in eps]
        self.masking = masking
        self.rows: list[dict[str, Any]] = []
        self.checks: list[Check] = []

    def start(self, trainer: Trainer, module: AdversarialModule) -> None:
        self._chosen = default_attacks(module.val_attack) if self.attacks is None else self.attacks
        # In validation the module's own attack may get fewer examples; no other attack gets more.
        limits = [self.max_samples, module.val_attack_samples if self.stage == "val" else None]
        self._limit = min((limit for limit in limits if limit is not None), default=None)
        # With a limit, the module's own attack may stand beside the others a second time, on the same examples.
        judging = [] if module.val_attack is None or self._limit else [module.val_attack]
        self._attacks = joined(self._chosen, added_attacks(module.val_attack, self.eps, self.masking), judging)
        self._own = None if module.val_attack is None else type(module.val_attack).__name__
        while self._own is not None and key_of(self._own) in map(key_of, self._attacks):
            self._own = f"own {self._own}"
        self._judged: dict[str, AttackCounts] = {}
        self._classes = 0
        self._worst = ErrorRate().to(module.device)
        self._seen, self._shares = 0, ClassShares()
        self._pictures: list[Picture] = []

    def judge(self, trainer: Trainer, module: AdversarialModule, x: Tensor, y: Tensor, outputs: Any) -> None:
        if isinstance(outputs, dict) and {"logits", "adv_logits"} <= outputs.keys():
            logits, adv_logits = outputs["logits"], outputs["adv_logits"]
        else:  # a user's own step may return anything
            logits = module(private_copy(module, x))
            adv_logits = logits[:0] if module.val_attack is None else module.judge(x, y, module.val_attack)[1]
        n = within_limit(self._limit, trainer.global_rank, trainer.world_size, self._seen, len(x))
        self._seen += len(x)
        first = not self._judged
        if first:
            self._classes = number_of_classes(logits, module.loss_fn)
            self._prepare(self._classes, module)
            check_inputs(x, *self._attacks.values())
        if self._limit is not None:
            self._shares.add(y, n, self._classes)
        self._judged["clean"].update(logits, y, module.loss_fn)
        wrong = self._clean.update(logits[:n], y[:n], module.loss_fn)
        wrong_clean = wrong.clone()
        if self._own is not None:
            own = self._judged[self._own].update(adv_logits, y[: len(adv_logits)], module.loss_fn)[:n]
            if first and module.val_attack is not None and len(own):
                self._picture(self._own, trainer, module, own)
            wrong[: len(own)] |= own
        if n == 0:
            return
        x, y = unpacked(module, self.batch, slice(n))
        fooled_by = {} if self._own is None or len(own) < n else {self._own: own}
        draws = self.masking and self._evidence.answers_differ(module, x)
        for name, attack in self._attacks.items():
            if self._only_if_random(name) and not draws:
                continue
            announce(trainer, name)
            x_adv = attack(module, x, y, loss_fn=module.loss)
            fooled = fooled_by[name] = self._judged[name].update(module(private_copy(module, x_adv)), y, module.loss_fn)
            if name in self._chosen:
                wrong |= fooled
            if first and name in self._chosen:
                self._picture(name, trainer, module, fooled, x_adv)
                unpacked(module, self.batch, slice(n))
        announce(trainer, None)
        self._worst.update(wrong, torch.zeros_like(wrong))
        if self.masking:
            self._evidence.update(trainer, module, x, y, wrong_clean, fooled_by)

    def finish(self, trainer: Trainer, module: AdversarialModule) -> Section:
        self._shares.warn(f"max_samples={self._limit}")
        classes = trainer.strategy.broadcast(self._classes)
        if not self._judged:  # a process without examples still takes part in the sums
            self._prepare(classes, module)
        clean, own = [self._judged["clean"].row("clean", None)], []
        self._clean_row = self._clean.row("clean", None)
        if self._own is not None:
            own = [self._judged[self._own].row(self._own, module.val_attack)]
        draws = self._evidence.draws_anywhere(trainer)
        judged_by = {name: a for name, a in self._attacks.items() if draws or not self._only_if_random(name)}
        others = [self._judged[name].row(name, attack) for name, attack in judged_by.items()]
        self._same = others[0]["n"] if others else clean[0]["n"]
        # The module's own attack, added in case it got more examples than the others, is a duplicate if it did not.
        twins = [(row["attack"], row["n"]) for row in own]
        others = [row for row in others if row["name"] in self._chosen or (row["attack"], row["n"]) not in twins]
        others = [row for row in others if row["n"] == self._same or not self._only_if_random(row["name"])]
        for row in others:
            module.log(f"{self.stage}/{key_of(row['name'])}_error", row["error"], sync_dist=True)
        self.rows = [*clean, *own, *others]
        judged = [row["name"] for row in (*own, *others) if row["name"] in (self._own, *self._chosen)]
        if len(judged) > 1:
            self.rows.append({"name": "worst case", "attack": None, "worst_of": judged, **rate(self._worst)})
            module.log(f"{self.stage}/worst_case_error", self.rows[-1]["error"], sync_dist=True)
        return self._section(trainer, module)

    def _prepare(self, classes: int, module: AdversarialModule) -> None:
        self._clean = AttackCounts(classes).to(module.device)  # on the examples that the attacks get
        names = ["clean", *([] if self._own is None else [self._own]), *self._attacks]
        self._judged = {name: AttackCounts(classes).to(module.device) for name in names}
        own = {} if self._own is None or module.val_attack is None else {self._own: module.val_attack}
        self._evidence = MaskingEvidence(classes, own | self._attacks, module.device)

    def _only_if_random(self, name: str) -> bool:
        """Whether this attack differs from PGD only on a network with random answers, and nobody chose it."""
        return name not in self._chosen and isinstance(self._attacks[name], EOTPGD)

    def _picture(
        self, name: str, trainer: Trainer, module: AdversarialModule, fooled: Tensor, x_adv: Tensor | None = None
    ) -> None:
        """Keep a few images under an attack, the fooled ones first, for a picture; x_adv None: under the own attack."""
        few = fooled_first(fooled)
        x, y = unpacked(module, self.batch, few)
        if not (trainer.is_global_zero and x.dim() == 4 and x.shape[1] in (1, 3)):
            return
        if x_adv is None:
            assert module.val_attack is not None
            perturbed = module.val_attack(module, x, y, loss_fn=module.loss)
        else:
            perturbed = x_adv[few]
        self._pictures.append(examples(name, module, x, perturbed, y, class_names(trainer)))

    def _section(self, trainer: Trainer, module: AdversarialModule) -> Section:
        stage = {"test": "Test", "val": "Validation"}[self.stage]
        title = f"{stage}, model in {mode(module)} mode"
        clean, *rows = self._rows_of_same_examples()
        shown = [row for row in self.rows if row["name"] in ("clean", self._own, *self._chosen)]
        worst = [row for row in self.rows if "worst_of" in row]
        added = [row for row in self.rows if row not in shown + worst]
        section = Section(
            "Under attack",
            "Error with its 95 % interval (Wilson). The confidence of mistakes is the mean largest probability of the "
            "misclassified examples; the last column is the mean probability that they give to all wrong classes "
            "together. Eps is in the units of the input; the result is clipped to the bounds. Worst case counts an "
            "example that is misclassified clean, under the model's own attack, or under one of the chosen attacks, "
            "which by default are FGSM and PGD at its eps.",
            tables=[
                table_of(title, shown + worst),
                *([table_of("For the curve over eps and the checks for masked gradients", added)] if added else []),
            ],
            rows=self.rows,
            headline=headline(shown, worst),
            pictures=[
                *self._pictures,
                *curves_over_eps(clean, rows),
                *distributions(shown, self._judged, class_names(trainer)),
            ],
        )
        section.notes += not_finite_named(self.rows)
        if self.attacks is None and not self._chosen:
            section.notes.append(what_is_missing(module.val_attack))
        if self.masking:
            self._check(trainer, module, section)
        return section

    def _check(self, trainer: Trainer, module: AdversarialModule, section: Section) -> None:
        """Look for masked gradients."""
        ball = max_norm_ball(module.val_attack)
        evidence = self._evidence.gathered(trainer, module, 0 if ball is None else ball.eps)
        self.checks = masking_checks(self._rows_of_same_examples(), **evidence)
        section.verdict = verdict(self.checks)
        section.notes.append(section.verdict)
        checks = [[check.name, check.outcome, check.words] for check in self.checks]
        section.tables.append(Table("Are gradients masked?", ["check", "outcome", "what was found"], checks, True))
        section.record["masking"] = {"verdict": section.verdict, "checks": [vars(check) for check in self.checks]}

    def _rows_of_same_examples(self) -> list[dict[str, Any]]:
        """Return the clean row and all attacks on the first `max_samples` examples."""
        return [self._clean_row, *(row for row in self.rows[1:] if row["n"] == self._same and "worst_of" not in row)]
