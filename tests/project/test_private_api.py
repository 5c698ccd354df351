"""Private names and message texts of other libraries: all are in docs/private_api.md, and all are still there.

A failure here after an upgrade says what to look at before anything else.
"""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from jsonargparse import ArgumentParser
from lightning.fabric.connector import _PRECISION_INPUT
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ModelSummary
from lightning.pytorch.cli import OptimizerCallable, instantiate_module
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.distributed.nn.functional import all_gather
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, SequentialLR

import adv_lightning
from adv_lightning.attacks import FGSM, Attack
from adv_lightning.cli import error_messages
from tests.conftest import ROOT
from tests.support.helpers import quiet_trainer

PACKAGE = Path(adv_lightning.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
PAGE = (ROOT / "docs" / "private_api.md").read_text(encoding="utf-8")
PRIVATE = re.compile(r"_[A-Za-z0-9]\w*$")
PUBLIC = {"_exit"}  # os._exit is documented


class Row(NamedTuple):
    """A row of the table: a dotted name, or a text in quotes."""

    name: str
    files: frozenset[str]

    @property
    def is_text(self) -> bool:
        return self.name.startswith('"')

    @property
    def text(self) -> str:
        return self.name.strip('"')


def rows() -> Iterator[Row]:
    for line in PAGE.splitlines():
        if line.startswith(("| `", "| ``")):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert len(cells) == 5, line
            assert all(cells), line
            name = re.fullmatch(r"(`+) ?(.*?) ?\1", cells[0])
            assert name, line
            yield Row(name[2], frozenset(re.findall(r"`([^`]+)`", cells[2])))


ROWS = list(rows())
NAMES = [row for row in ROWS if not row.is_text]
TEXTS = [row for row in ROWS if row.is_text]


# What the package uses


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def module_of(path: Path) -> Any:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return importlib.import_module(".".join(part for part in parts if part != "__init__"))


@cache
def private_names(kind: type) -> set[str]:
    """Private names of a class of another library: of the class, and of what it sets on itself."""
    if kind.__module__.split(".")[0] in ("adv_lightning", "builtins", "abc", "typing"):
        return set()
    found = {name for name in vars(kind) if PRIVATE.match(name)}
    with suppress(OSError, TypeError):
        found |= set(re.findall(r"\bself\.(_[a-z0-9]\w*)", inspect.getsource(kind)))
    return found


def foreign_names(kind: type) -> set[str]:
    """Private names of a class's bases from other libraries."""
    return set().union(*map(private_names, kind.__mro__))


def defined() -> set[str]:
    """Private names that the package itself defines."""
    found: set[str] = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name for name in found if PRIVATE.match(name)}


OWN = defined()


class Scan(ast.NodeVisitor):
    """Collects the private names of other libraries in a file."""

    def __init__(self, path: Path) -> None:
        self.module = module_of(path)
        self.found: set[str] = set()
        self.hidden: set[str] = set()  # asked for with a default, so that nobody would notice that they are gone
        self.of_bases: set[str] = set()
        self.visit(ast.parse(path.read_text(encoding="utf-8")))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and node.module.split(".")[0] not in ("adv_lightning", "__future__"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            self.found |= {name for name in names if PRIVATE.match(name)}

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.found |= {name for name in alias.name.split(".") if PRIVATE.match(name)}

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        before = self.of_bases
        self.of_bases = foreign_names(getattr(self.module, node.name, object))
        self.found |= {
            each.name for each in node.body if isinstance(each, ast.FunctionDef) and each.name in self.of_bases
        }
        self.generic_visit(node)
        self.of_bases = before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        own_object = ast.unparse(node.value) in ("self", "cls", "super()")
        foreign = node.attr in self.of_bases if own_object else node.attr not in OWN | PUBLIC
        if PRIVATE.match(node.attr) and (foreign or node.attr not in OWN | PUBLIC):
            self.found.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr", "attrgetter"):
            for word in node.args[1:2]:
                if isinstance(word, ast.Constant) and PRIVATE.match(str(word.value)) and word.value not in OWN:
                    self.found.add(str(word.value))
                    if len(node.args) > 2:
                        self.hidden.add(str(word.value))
        self.generic_visit(node)


SCANS = {relative(path): Scan(path) for path in FILES}


def test_every_private_name_has_a_row() -> None:
    listed = {part for row in NAMES for part in row.name.split(".") if PRIVATE.match(part)}
    assert {file: scan.found - listed for file, scan in SCANS.items() if scan.found - listed} == {}


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.name)
def test_a_row_names_the_files_that_use_it(row: Row) -> None:
    name = row.name.rpartition(".")[2]
    assert {file for file, scan in SCANS.items() if name in scan.found} == row.files


def test_no_default_hides_a_change() -> None:
    assert {file: scan.hidden for file, scan in SCANS.items() if scan.hidden} == {}


def test_an_override_has_the_parameters_of_what_it_overrides() -> None:
    for path in FILES:
        for kind in vars(module_of(path)).values():
            if inspect.isclass(kind) and kind.__module__ == module_of(path).__name__:
                for name in foreign_names(kind) & vars(kind).keys():
                    base = next(b for b in kind.__mro__[1:] if name in vars(b))
                    if inspect.isfunction(vars(kind)[name]):
                        theirs = inspect.signature(vars(base)[name]).parameters
                        assert list(inspect.signature(vars(kind)[name]).parameters) == list(theirs), (kind, name)


def test_every_pattern_of_a_message_has_a_row() -> None:
    patterns = {name: each for name, each in vars(error_messages).items() if isinstance(each, re.Pattern)}
    for name in patterns.keys() - {"_WHOLE", "_OWN_CLASS"}:
        for alternative in re.split(r"\|(?![^(]*\))", patterns[name].pattern):
            assert any(row.text in alternative for row in TEXTS), (name, alternative)


@pytest.mark.parametrize("row", TEXTS, ids=lambda row: row.text)
def test_a_text_is_in_the_files_of_its_row(row: Row) -> None:
    assert row.files
    for file in row.files:
        assert row.text in (PACKAGE / file).read_text(encoding="utf-8")


# What the other libraries still have


def sequential() -> SequentialLR:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    return SequentialLR(optimizer, [ConstantLR(optimizer), ConstantLR(optimizer)], milestones=[1])


def chained() -> ChainedScheduler:
    return ChainedScheduler([ConstantLR(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0))])


INSTANCES: dict[str, Callable[[], Any]] = {
    "lightning.pytorch.Trainer.fit_loop": lambda: quiet_trainer().fit_loop,
    "lightning.pytorch.callbacks.ModelCheckpoint": ModelCheckpoint,
    "torch.compile": lambda: torch.compile(nn.Linear(1, 1)),
    "torch.nn.Module": lambda: nn.Linear(1, 1),
    "torch.nn.Parameter": lambda: nn.Parameter(torch.zeros(1)),
    "torch.optim.lr_scheduler.SequentialLR": sequential,
    "torch.optim.lr_scheduler.ChainedScheduler": chained,
}


def resolved(name: str) -> Any:
    """What a dotted name leads to, over an instance where only one has it."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        place = ".".join(parts[:depth])
        found = None
        if place in INSTANCES:
            found = INSTANCES[place]()
        else:
            with suppress(ImportError):
                found = importlib.import_module(place)
        if found is not None:
            for part in parts[depth:]:
                found = getattr(found, part)
            return found
    raise AssertionError(f"{name} leads nowhere")


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.name)
def test_a_private_name_is_still_there(row: Row) -> None:
    resolved(row.name)


# What they still say


class Takes(nn.Module):
    def __init__(self, width: int = 3, inner: Attack | None = None) -> None:
        super().__init__()


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_subclass_arguments(Takes, "net", required=False)
    made.add_argument("--attack", type=Attack | None)
    made.add_argument("--factory", type=OptimizerCallable)
    made.add_argument("--size", type=list[int] | dict[str, int] | None)
    made.add_argument("--word", choices=["a", "b"])
    made.add_argument("--precision", type=_PRECISION_INPUT)
    made.add_class_arguments(Takes, "group", sub_configs=True)
    return made


def refused(*words: str, required: bool = False) -> str:
    made = parser()
    if required:
        made.add_argument("--needed", required=True)
    with pytest.raises(Exception, match=r".") as caught:
        made.parse_args(list(words))
    return str(caught.value)


def batchnorm() -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        nn.BatchNorm1d(2)(torch.zeros(1, 2))
    return str(caught.value)


def gloo() -> str:
    """What a process says whose partner is gone; both are threads here."""
    store, groups = dist.HashStore(), [None, None]

    def join(rank: int) -> None:
        groups[rank] = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=20))

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, groups[:] = groups[0], [None, None]
    gc.collect()
    with pytest.raises(RuntimeError) as caught:
        first.allreduce([torch.ones(1)]).wait()  # type: ignore[union-attr]
    return str(caught.value)


class Stateful(Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"a": 1}


@pytest.fixture(scope="module")
def warned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Lightning's warnings of a run without workers or validation, in a folder with checkpoints, and judged again."""
    folder = tmp_path_factory.mktemp("warned")
    with warnings.catch_warnings(record=True) as seen, pytest.MonkeyPatch.context() as patched:
        warnings.simplefilter("always")
        patched.setattr("lightning.pytorch.trainer.connectors.data_connector.suggested_max_num_workers", lambda _: 9)
        (folder / "old.ckpt").touch()
        model = BoringModel()
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            max_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelCheckpoint(folder, save_last=True), Stateful()],
        )
        trainer.fit(model, model.train_dataloader(), [])
        trainer.callbacks = []  # type: ignore[attr-defined]
        trainer.validate(model, ckpt_path=folder / "last.ckpt", verbose=False)
    return "\n".join(str(warning.message) for warning in seen)


def stopped() -> str:
    stopping = EarlyStopping("loss", stopping_threshold=1.0)

    class Module(BoringModel):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("loss", 0.0)

    quiet_trainer(callbacks=[stopping]).fit(Module())
    return stopping.stopping_reason_message or ""


def missing_argument() -> str:
    class Needs(LightningModule):
        def __init__(self, backbone: nn.Module) -> None:
            super().__init__()

    with pytest.raises(TypeError) as caught:
        Needs()  # type: ignore[call-arg]
    return str(caught.value)


def class_path_key() -> str:
    module = instantiate_module(Attack, {"_class_path": "adv_lightning.FGSM", "eps": 0.5})
    assert isinstance(module, FGSM)
    assert module.eps == 0.5
    return "_class_path"


def lines_of_a_trainer() -> str:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    log.addHandler(handler)
    try:
        Trainer(accelerator="cpu", logger=False, callbacks=[ModelSummary()])
    finally:
        log.removeHandler(handler)
    return "\n".join(lines)


def gathered() -> str:
    with warnings.catch_warnings(record=True) as seen, suppress(Exception):
        warnings.simplefilter("always")
        all_gather(torch.ones(1), None)
    return str(seen[0].message)


SAID: dict[str, Callable[[], str]] = {
    "Expected more than 1 value per channel": batchnorm,
    "/gloo/transport/": gloo,
    " Signaling Trainer to stop.": stopped,
    "'backbone'": missing_argument,
    "_class_path": class_path_key,
    "💡 Tip: ": lines_of_a_trainer,
    "Trainer already configured with model summary callbacks": lines_of_a_trainer,
    "torch.distributed.nn.functional.all_gather is deprecated": gathered,
    "Parser key ": lambda: refused("--size=x"),
    "Does not validate against any of the Union subtypes": lambda: refused("--size=x"),
    "Subtypes: ": lambda: refused("--size=x"),
    "Errors:": lambda: refused("--size=x"),
    "Expected a <class 'NoneType'>": lambda: refused("--size=x"),
    "Given value type: ": lambda: refused("--size=x"),
    "Given value: ": lambda: refused("--size=x"),
    "Problem with given class_path '": lambda: refused("--net=Takes", "--net.depth=1"),
    "' is not accepted": lambda: refused("--net=Takes", "--net.depth=1"),
    "Got value: Namespace": lambda: refused("--factory=torch.optim.SGD", "--factory.rate=1"),
    "Expected a dot import path string: ": lambda: refused("--attack=Nothing"),
    "unrecognized arguments: ": lambda: refused("--nothing=1"),
    "does not accept option '": lambda: refused("--group={a: 1}"),
    "Expected a path but ": lambda: refused("--net=Takes", "--net.inner=x"),
    "does not correspond to a subclass of ": lambda: refused("--net=os.path.join"),
    "' to be a function that returns <class '": lambda: refused("--factory=textwrap.dedent"),
    " expects a function or a callable class: ": lambda: refused("--factory=textwrap.dedent"),
    "' to be a subclass of ": lambda: refused("--factory=torch.nn.Linear"),
    "No module named '": lambda: refused("--net=no_such_module.net"),
    "' has no attribute '": lambda: refused("--net=os.nothing"),
    "Expected a typing.Literal": lambda: refused("--precision=17"),
    "invalid choice: '": lambda: refused("--word=c"),
    "File does not exist: ": lambda: refused("--config=nothing.yaml"),
    "the following arguments are required: ": lambda: refused(required=True),
}
WARNED = [row for row in TEXTS if row.text not in SAID]


@pytest.mark.parametrize("text", SAID)
def test_a_message_is_still_said(text: str) -> None:
    assert text in {row.text for row in TEXTS}
    assert text in SAID[text]()


@pytest.mark.parametrize("row", WARNED, ids=lambda row: row.text)
def test_a_warning_is_still_said(row: Row, warned: str) -> None:
    assert re.search(row.text, warned)
