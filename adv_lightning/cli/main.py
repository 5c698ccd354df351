"""Runs a command line: finds the command, and turns what it refuses into an error of one line."""

from __future__ import annotations

import sys
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from adv_lightning.callbacks import NotFiniteError
from adv_lightning.cli.adversarial_cli import AdversarialCLI
from adv_lightning.cli.commands import COMMANDS, unknown
from adv_lightning.cli.error_messages import is_ours
from adv_lightning.cli.process_state import restored
from adv_lightning.cli.terminal import quiet


def main(args: list[str] | None = None) -> Any:
    """Run the command line `args`, by default `sys.argv[1:]`.

    The process is left as it was: environment variables, among them the seed that Lightning keeps there, and filters
    of warnings are put back.

    Returns:
        What the command returns: an `AdversarialCLI` with its trainer and model for `fit`, `validate`, `test`,
        `predict` and `refit`; for `compare` a `Comparison` with its figures.

    Raises:
        SystemExit: status 2 after an error that the user can fix, such as a wrong argument, a missing file or a full
            disk; the reason is printed. Status 143 after SIGTERM.
    """
    words = sys.argv[1:] if args is None else args
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise _refusal(unknown(words[0]))
    run = COMMANDS[words[0]].load() if words and words[0] in COMMANDS else None
    with restored(), quiet():
        try:
            return AdversarialCLI(args=args) if run is None else run(words[1:])
        except SIGTERMException:
            raise SystemExit(143) from None  # 128 + 15, as a shell reports it: the run is not finished
        except MisconfigurationException as error:
            raise _refusal(f"error: {error}") from error
        except (OSError, ValueError, TypeError, ImportError, RuntimeError, NotFiniteError) as error:
            if not is_ours(error):
                raise
            raise _refusal(f"error: {error}") from error


def _refusal(text: str) -> SystemExit:
    sys.stderr.write(f"{text}\n")
    return SystemExit(2)
