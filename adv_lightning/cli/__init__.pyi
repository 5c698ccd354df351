from .command_line import AdversarialCLI
from .main import main

__all__ = ["AdversarialCLI", "main"]
