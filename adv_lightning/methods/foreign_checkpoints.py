"""Checkpoints from elsewhere: what is said of one that does not hold what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OBJECT = re.compile(r"GLOBAL (?P<name>[\w.]+)")
_OURS = "backbone."


def why_unsafe(error: Exception) -> str:
    """Return why torch's safe loading refuses a file, in one line."""
    if found := _OBJECT.search(str(error)):
        return (
            f"cannot be read safely: it holds an object of {found['name']}, which could run code. If you trust it, "
            "read it with torch.load(path, weights_only=False), and save weights alone: "
            "torch.save(net.state_dict(), path)"
        )
    reason = next(iter(str(error).strip().splitlines()), "")
    return f"cannot be read safely as a checkpoint: {type(error).__name__}: {reason}"


def why_no_state(held: Any) -> str:
    """Return what to do with a file of torch that is no checkpoint."""
    if isinstance(held, Mapping) and held and all(hasattr(value, "shape") for value in held.values()):
        return (
            "is not a checkpoint of a Lightning run, but weights alone: load them into the network, "
            "net.load_state_dict(torch.load(path)), and pass it as the backbone"
        )
    return "is not a checkpoint of a Lightning run: it has no state_dict"


def without_network(path: Any, maker: str | None, ours: bool) -> str:
    """Return what a checkpoint lacks that no command line has made, and what to do.

    Args:
        path: The file.
        maker: Import path of the class that made it, if it is known.
        ours: Whether a module of this package made it.
    """
    name = (maker or "AdversarialModule").rpartition(".")[2]
    if not ours:
        return (
            f"{path} was made by a LightningModule that is no AdversarialModule. Load it with the load_from_checkpoint "
            "of its own class, and pass its network on: AdversarialModule(module.net, attack=...)"
        )
    in_script = str(maker).startswith("__main__.")
    place = "a script" if in_script else "Python"
    return (
        f"{path} holds the weights of a module of the class {name}, made in {place}, but not the code of its network. "
        f"Pass the network: in Python {name}.load_from_checkpoint(path, backbone=net), on the command line "
        "--model.backbone=mypackage.Net"
        + (f" or --model=mypackage.{name}, with the class in a module that can be imported" if in_script else "")
    )


def misfit(needed: Mapping[str, Any], found: Mapping[str, Any], strict: bool) -> str | None:
    """Return how weights differ from those of a module; None if they do not, in names and shapes.

    Args:
        needed: The module's own state dict.
        found: What is to be loaded.
        strict: Whether each must have all names of the other.
    """
    missing = [name for name in needed if strict and name not in found]
    more = [name for name in found if strict and name not in needed]
    both = {name: (_shape(found[name]), _shape(value)) for name, value in needed.items() if name in found}
    shapes = {name: pair for name, pair in both.items() if None not in pair and pair[0] != pair[1]}
    parts = [f"{len(missing)} not in the file, first {missing[0]}"] if missing else []
    parts += [f"{len(more)} in the file alone, first {more[0]}"] if more else []
    for name, (theirs, own) in list(shapes.items())[:1]:
        parts.append(f"{len(shapes)} of another shape, first {name}: {theirs} in the file, {own} here")
    if not parts:
        return None
    advice = "Give the network that was trained, with the arguments that it had"
    if not any(str(key).startswith(_OURS) for key in found):
        advice = f"No name in the file begins with {_OURS}, so another LightningModule made it: pass on its network"
    return f"the weights do not fit the network: {'; '.join(parts)}. {advice}"


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if hasattr(value, "shape") else None
