"""`python -m adv_lightning`: answers the top-level help at once, and imports torch for the rest."""

from __future__ import annotations

import sys

from adv_lightning.cli.commands import COMMANDS, help_text, unknown


def run(args: list[str]) -> int:
    """Run the command line `args` and return the exit status."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if args else 2
    if args[0] == "--version":
        from adv_lightning import __version__

        print(f"adv_lightning {__version__}")
        return 0
    if args[0] not in COMMANDS and not args[0].startswith("-"):
        sys.stderr.write(unknown(args[0]) + "\n")
        return 2
    from adv_lightning.cli import main

    main(args)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
