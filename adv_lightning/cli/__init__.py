"""The command line. Names are imported on first use, so that `cli.commands` needs no torch."""

import lazy_loader

__all__ = ["AdversarialCLI", "main"]
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
