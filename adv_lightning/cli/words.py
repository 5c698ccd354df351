"""What a command line says of a key, before it is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml


def value_of(words: Sequence[str], key: str) -> Any:
    """Return what a command line says of a key, itself or in one of its configuration files."""
    value = _option(words, f"--{key}")
    files = [word for flag, word in pairwise(words) if flag in ("--config", "-c")]
    files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    for file in files if value is None else ():
        if Path(file).is_file():
            with suppress(yaml.YAMLError):  # the parser says what is wrong with it
                content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
                for part in key.split("."):
                    content = content.get(part) if isinstance(content, dict) else None
                value = value if content is None else content
    return value


def _option(words: Sequence[str], name: str) -> str | None:
    """Return the last value of the option `name` in a command line."""
    value = None
    for i, word in enumerate(words):
        if word == name and i + 1 < len(words):
            value = words[i + 1]
        elif isinstance(word, str) and word.startswith(f"{name}="):
            value = word.partition("=")[2]
    return value
