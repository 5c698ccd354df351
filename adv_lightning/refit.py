"""The paper's protocol: train again from scratch on all data, for the number of epochs a run found best."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_EPILOG = """\
The run's config.yaml is used again, with data.val_size=0, trainer.max_epochs set to the best epoch + 1 (epochs
count from 0), no early stopping, and the last checkpoint kept in place of the best. Further --KEY VALUE arguments,
as for fit, win over these: --seed_everything 1 for another seed. Source: Goodfellow et al. 2015, section 6.
"""


def refit_arguments(words: Sequence[str]) -> list[str]:
    """Return the arguments of `fit` that retrain a finished run on all training data.

    Args:
        words: The command line after `refit`: `--run DIR`, and arguments of `fit` that win over the run's.

    Raises:
        SystemExit: the folder is no finished run; the reason is printed, status 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m adv_lightning refit",
        description="Train again from scratch on all training data, for the number of epochs a run found best.",
        epilog=_EPILOG,
    )
    parser.add_argument("--run", required=True, type=Path, help="folder of the run, such as lightning_logs/version_0")
    options, further = parser.parse_known_args(words)
    config = options.run / "config.yaml"
    if not config.is_file():
        raise _refusal(
            f"--run {options.run}: there is no config.yaml in it; give the folder of a run, such as "
            "lightning_logs/version_0"
        )
    epochs = best_epoch(options.run) + 1
    print(
        f"refit: {options.run} was best in epoch {epochs - 1}; training from scratch for {epochs} epochs.",
        flush=True,
    )
    return [
        "fit",
        f"--config={config}",
        "--ckpt_path=null",
        "--data.val_size=0",
        f"--trainer.max_epochs={epochs}",
        "--trainer.min_epochs=null",
        "--callbacks.early_stopping=null",
        "--callbacks.checkpoint.monitor=null",
        *further,
    ]


def best_epoch(run: Path) -> int:
    """Return the epoch, counted from 0, in which early stopping found its best figure, or the best checkpoint's.

    Raises:
        SystemExit: the run has neither.
    """
    folder = run / "checkpoints"
    for name in ("last.ckpt", "best.ckpt"):
        path = folder / name
        if not path.is_file():
            continue
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        if name == "best.ckpt":
            return int(checkpoint["epoch"])
        for state in checkpoint.get("callbacks", {}).values():
            if isinstance(state, dict) and state.get("best_epoch") is not None:
                return int(state["best_epoch"])
    raise _refusal(
        f"--run {run}: no best epoch is known; it needs checkpoints/last.ckpt of a run with early stopping, or "
        "checkpoints/best.ckpt"
    )


def _refusal(reason: str) -> SystemExit:
    sys.stderr.write(f"error: {reason}\n")
    return SystemExit(2)
