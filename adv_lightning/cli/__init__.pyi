from .adversarial_cli import AdversarialCLI
from .main import main

__all__ = ["AdversarialCLI", "main"]
