"""Adversarial training and honest evaluation of classifiers with PyTorch Lightning."""

import ast
from pathlib import Path

import lazy_loader

_HOMES = ("attacks", "callbacks", "cli", "evaluation", "losses", "methods", "module")
"""The parts whose names are public here too; __init__.pyi says the same to type checkers."""


def _names(home: str) -> list[str]:
    """Read the `__all__` of a part without importing it, so that the top-level --help need not import torch."""
    path = Path(__file__).with_name(home)
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    listed = (node for node in ast.parse(source).body if isinstance(node, ast.Assign))
    names: list[str] = next(
        ast.literal_eval(node.value) for node in listed if ast.unparse(node.targets[0]) == "__all__"
    )
    return names


__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={home: _names(home) for home in _HOMES})

__version__ = "0.1.0"
