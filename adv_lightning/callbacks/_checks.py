"""What callbacks ask of the module that they work on."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule

from adv_lightning.module import AdversarialModule


def adversarial(module: LightningModule, callback: Callback) -> AdversarialModule:
    """Return `module` as what it must be.

    Raises:
        TypeError: it is no AdversarialModule.
    """
    if not isinstance(module, AdversarialModule):
        raise TypeError(
            f"{type(callback).__name__} works on an AdversarialModule, and this is a {type(module).__name__}"
        )
    return module
