"""The commands' parser, and which errors it explains."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from adv_lightning.cli.errors import explain


class ArgumentParser(LightningArgumentParser):
    """Lightning's parser, whose errors are a few lines that name what is near."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        if not self.exit_on_error:
            return super().error(message, ex)
        sys.stderr.write(explain(message, self) + "\n")
        raise SystemExit(2)


def is_ours(error: BaseException) -> bool:
    """Whether this package raised the error on purpose, or what it came from; elsewhere a traceback says more."""
    link: BaseException | None = error
    while link is not None:
        frames = traceback.extract_tb(link.__traceback__)
        if frames and Path(frames[-1].filename).is_relative_to(Path(__file__).parent):
            return True
        link = link.__cause__
    return False
