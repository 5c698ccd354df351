"""How the cost of a step grows with the batch, the width and the steps of the attack."""

# mypy: disable-error-code="no-untyped-call"
# torch leaves `backward` untyped.

from __future__ import annotations

import copy
from functools import partial

from adv_lightning import FGSM, PGD, AdversarialModule, Attack
from adv_lightning.models import MaxoutMLP
from benchmarks.nets import Net
from benchmarks.peers import ALPHA, EPS, Action
from benchmarks.report import Section, Table
from benchmarks.steps import clean, sgd
from benchmarks.timing import Run, figure, interleaved


def _case(batch: int = 100, units: int = 240, attack: Attack | None = None) -> tuple[Net, Attack]:
    return Net("", partial(MaxoutMLP, units=units), (batch, 1, 28, 28), 0), attack or FGSM(EPS)


CASES = {
    **{f"batch {size}": _case(batch=size) for size in (25, 100, 400)},
    **{f"{units} units": _case(units=units) for units in (60, 240, 960)},
    **{f"PGD, steps: {n}": _case(attack=PGD(EPS, EPS / n, steps=n)) for n in (1, 5, 20, 40)},
}


def measure(run: Run) -> Section:
    """Time a clean and an adversarial step as one thing grows."""
    names = list(CASES)[::3] if run.quick else list(CASES)
    actions = {
        f"{name}: {kind}": run.timed(action) for name in names for kind, action in _pair(run, *CASES[name]).items()
    }
    found = interleaved(actions, run.rounds_of(10))
    table = Table(
        ["maxout, 240 x 5, batch 100, FGSM, but for", "clean, ms a step", "mixed, ms a step", "mixed / clean"]
    )
    for name in names:
        plain, mixed = found[f"{name}: clean"], found[f"{name}: mixed"]
        table.rows.append([name, plain.show(1e3), mixed.show(1e3), figure(mixed.over(plain))])
    return Section("Growth", [table], [NOTE], raw=found)


def _pair(run: Run, net: Net, attack: Attack) -> dict[str, Action]:
    x, y = net.batch(run.device)
    module = AdversarialModule(net.made(run.device), attack, alpha=ALPHA)
    own = copy.deepcopy(module.backbone)
    plain, optimizer = sgd(own), sgd(module)

    def mixed() -> None:
        optimizer.zero_grad()
        module.objective(x, y).total.backward()
        optimizer.step()

    return {"clean": lambda: clean(own, plain, x, y), "mixed": mixed}


NOTE = """\
Clean: plain training by hand. Mixed: `AdversarialModule.objective`, its backward pass and the optimizer. FGSM takes \
two forward and two backward passes; PGD one of each for every step, by the input alone, and then the same two."""
