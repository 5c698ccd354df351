"""What a checkpoint holds beside Lightning's own, and how one is read: safely, as data alone.

Format 2 holds public class paths (`adv_lightning.FGSM`). Format 1 held those of files, some of which have moved since:
`moved_paths` reads them for good.
"""

from __future__ import annotations

import zipfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn

from adv_lightning.attacks.plain_values import class_path, imported
from adv_lightning.methods.checkpoint_kinds import check_checkpoint
from adv_lightning.methods.foreign_checkpoints import why_no_state, why_unsafe, without_network
from adv_lightning.methods.moved_paths import moved
from adv_lightning.methods.optimizers import described_scheduler
from adv_lightning.methods.stored_arguments import check_left_out, restore, split, texts
from adv_lightning.methods.stored_classes import check_classes, check_importable, without_sources
from adv_lightning.methods.stored_states import make_states_plain, restore_states

T = TypeVar("T")

CHECKPOINT_FORMAT = 2
"""Version of what a checkpoint holds; raised when later code must tell them apart."""

MODEL = "hyper_parameters"
DATA = "datamodule_hyper_parameters"
SEED = "adv_lightning_seed"
MEANS = "adv_lightning_means"
CLASS = "adv_lightning_class"
FIXED = "adv_lightning_fixed"
CLASSES = "adv_lightning_classes"
LEFT_OUT = "adv_lightning_left_out"
_FORMAT = "adv_lightning_format"
_LOSS = "adv_lightning_loss"
_FRAMEWORKS = ("lightning", "pytorch_lightning", "lightning_fabric")
_OURS = ("adv_lightning_", "backbone.")


def read_checkpoint(path: str | Path, *, mmap: bool = True) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU, with torch's safe loading.

    Args:
        path: A file on this machine.
        mmap: Leave tensors in the file until they are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint, was cut short, holds more than data, or is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a checkpoint, or was cut short")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception as error:
        raise ValueError(f"{path} {why_unsafe(error)}") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} {why_no_state(checkpoint)}")
    check_checkpoint(checkpoint, path)
    return checkpoint


def upgrade(checkpoint: dict[str, Any], *, loss: str) -> None:
    """Bring a checkpoint to today's format in place; warn if it was made with a loss other than `loss`.

    Raises:
        ValueError: a later version of this package made it.
    """
    found = checkpoint.get(_FORMAT, 1)
    if found > CHECKPOINT_FORMAT:
        raise ValueError(
            f"the checkpoint has format {found}, and this adv_lightning reads formats up to {CHECKPOINT_FORMAT}: "
            "upgrade it with pip install -U adv_lightning"
        )
    if (before := str(checkpoint.get(_LOSS, loss))) != loss:
        rank_zero_warn(
            f"the checkpoint was made with the loss {before}, but this module has {loss}: pass the former as loss_fn= "
            "if the change is not intended"
        )
    restore_states(checkpoint)
    if found == 1:  # an attack with buffers was the module's own, and is its method's now
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {
            f"method.{key}" if key.startswith("attack.") else key: value for key, value in state.items()
        }


def mark(
    checkpoint: dict[str, Any],
    *,
    kind: type,
    seed: int | None,
    loss: str,
    data: Mapping[str, Any] | None = None,
    fixed: Container[str] = (),
    left_out: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Add what a checkpoint holds beside Lightning's own, and make it safe to load.

    Attacks and methods are stored as descriptions, class paths as public ones, numpy's numbers as Python's; what runs
    code is left out.

    Args:
        checkpoint: What Lightning will write.
        kind: Class of the module.
        seed: Of the process.
        loss: Text of the loss.
        data: Hyper-parameters that `split` has made data of already.
        fixed: Names of hyper-parameters that are no arguments of the module's constructor.
        left_out: Arguments that the hyper-parameters do not have, because they are no data.

    Returns:
        All that is left out.
    """
    checkpoint[_FORMAT] = CHECKPOINT_FORMAT
    checkpoint[CLASS] = class_path(kind)
    checkpoint[SEED] = seed
    checkpoint[_LOSS] = loss
    left_out = {**(left_out or {}), **make_states_plain(checkpoint, but=("state_dict", MODEL, DATA))}
    if MODEL in checkpoint:
        checkpoint[FIXED] = {name: value for name, value in (data or {}).items() if name in fixed}
        arguments = {name: value for name, value in checkpoint[MODEL].items() if name not in fixed}
        ready = {name: value for name, value in arguments.items() if data and value is data.get(name)}
        rest = {name: value for name, value in arguments.items() if name not in ready}
        kept, lost = split(rest, tagged="_class_path" not in arguments)
        checkpoint[MODEL], left_out = moved({**ready, **kept}), left_out | lost
    checkpoint[LEFT_OUT] = texts(left_out)
    if DATA in checkpoint:
        kept, lost = split(checkpoint[DATA], tagged=False)
        checkpoint[DATA], left_out = moved(kept), left_out | {f"datamodule.{name}": each for name, each in lost.items()}
    return left_out


def training_arguments(method: Any, *, short: bool) -> dict[str, Any]:
    """Return the arguments that rebuild a method: those of the short form, or `method` itself."""
    if not short:
        return {"method": method}
    return {name: getattr(method, name) for name in method.config()["init_args"]}


def stored_module(path: Any, given: Container[str], kind: type[T]) -> tuple[type[T], dict[str, Any]]:
    """Return the class of the module in a checkpoint, and the arguments that Lightning would not pass as they were.

    Lightning builds the class that it is asked for, although the checkpoint may have a subclass of it. Arguments that
    are more than data, and class paths that have moved since, it passes as they are in the file.

    Args:
        path: A file on this machine, or one that is open; of an address, `kind` and no arguments are returned.
        given: Names of the arguments that are passed anew.
        kind: The class that is asked for.

    Raises:
        ValueError: the file is not a checkpoint, was cut short, or names a class that is not built from a file.
        TypeError: an argument cannot be rebuilt, or was left out and has no default.
        ImportError: an argument's class is not there.
    """
    if hasattr(path, "seek"):
        place = path.tell()
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        path.seek(place)
    elif isinstance(path, str | Path) and Path(path).is_file():
        checkpoint = read_checkpoint(path)
    else:
        return kind, {}
    stored = checkpoint.get(MODEL)
    stored = stored if isinstance(stored, dict) else {}
    check_classes({name: value for name, value in stored.items() if name not in given}, path)
    by_command_line, made = "_class_path" in stored, stored.get("_class_path", checkpoint.get(CLASS))
    found = imported(moved({"class_path": made})["class_path"])
    if isinstance(found, type) and issubclass(found, kind):
        kind = found
    elif (
        made is not None
        and not by_command_line
        and str(made).rpartition(".")[2] not in {c.__name__ for c in kind.__mro__}
    ):
        rank_zero_warn(
            f"{path} holds a {made}, and is loaded as a {kind.__name__}, which may have another loss: use "
            f"{str(made).rpartition('.')[2]}.load_from_checkpoint, or import it before, if that is not intended"
        )
    if by_command_line:
        today = {name: without_sources(moved(value)) for name, value in stored.items()}
        if "lr_scheduler" in today:  # Lightning's own parser would ask the inner ones for an optimizer
            today["lr_scheduler"] = described_scheduler(today["lr_scheduler"])
        check_importable({name: value for name, value in today.items() if name not in given}, path)
        return kind, {name: value for name, value in today.items() if value != stored[name]}
    check_left_out(checkpoint.get(LEFT_OUT, {}), given, kind)
    return kind, restore(stored, given)


def trained_with(arguments: dict[str, Any]) -> Any:
    """Return the description of the attack among a module's stored arguments: its own, or its method's."""
    method = arguments.get("method") or {}
    return arguments.get("attack") or (method.get("init_args") or {}).get("attack")


def unbuildable(checkpoint: dict[str, Any], path: Any, owner: str | None = None) -> str | None:
    """Return why a command line cannot build the module of a checkpoint, and what to do; None if it can.

    The class is `owner` if the checkpoint does not name it.
    """
    if "_class_path" in checkpoint.get(MODEL, {}):
        return None
    names = (*checkpoint, *checkpoint.get("state_dict", ()))
    return without_network(path, checkpoint.get(CLASS, owner), any(str(name).startswith(_OURS) for name in names))


@contextmanager
def missing_backbone_named(path: Any, owner: str) -> Iterator[None]:
    """Say what to pass where a module cannot be rebuilt from the checkpoint at `path` for want of its backbone.

    Raises:
        TypeError: the module, of the class `owner`, was built in Python, and no backbone is passed.
    """
    try:
        yield
    except TypeError as error:
        if "'backbone'" not in str(error):
            raise
        held = read_checkpoint(path) if isinstance(path, str | Path) and Path(path).is_file() else {_FORMAT: 1}
        raise TypeError(unbuildable(held, path, owner) or str(error)) from error


def described(checkpoint: dict[str, Any], key: str = MODEL) -> dict[str, Any] | None:
    """Return hyper-parameters of a checkpoint as `{class_path, init_args}` if the command line stored them, else None.

    Args:
        checkpoint: What `read_checkpoint` gives.
        key: `MODEL` for those of the module, `DATA` for those of the data module.
    """
    stored = without_sources(moved(checkpoint.get(key, {})))
    arguments = {name: value for name, value in stored.items() if not name.startswith("_")}
    if key == DATA:
        arguments.pop("download", None)  # a file must not make a command write where it says
        if str(stored.get("_class_path")).partition(".")[0] in _FRAMEWORKS:
            return None  # Lightning's demos download without being asked, to where an argument says
    return {"class_path": stored["_class_path"], "init_args": arguments} if "_class_path" in stored else None
