"""The command line."""

from adv_lightning.cli.command_line import AdversarialCLI, main

__all__ = ["AdversarialCLI", "main"]
