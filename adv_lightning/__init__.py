"""Adversarial training and honest evaluation of classifiers with PyTorch Lightning."""

import lazy_loader

# The names are listed once, in __init__.pyi. They are lazy, so that the top-level --help need not import torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
