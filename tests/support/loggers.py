"""Loggers with the interfaces that Lightning's loggers of other services have, without the services."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from lightning.pytorch.loggers import Logger

SHOWN: list[tuple[str, str]] = []
"""Logger and name of every picture that was shown."""


class Own(Logger):
    """The least that a logger must have."""

    runs = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.number = type(self).runs

    @property
    def name(self) -> str:
        return "mine"

    @property
    def version(self) -> int | str:
        return self.number

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass


class LikeWandb(Own):
    """As WandbLogger: a folder for all runs, a text for a version, and `log_image`."""

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__()
        self._save_dir = save_dir

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    def version(self) -> str:
        return f"run{self.number}"

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        assert [image.mode for image in images] == ["RGB"]
        SHOWN.append(("LikeWandb", key))


class LikeMLflow(Own):
    """As MLFlowLogger with a database: no folder at all, and pictures through its client."""

    run_id = "abc"

    @property
    def save_dir(self) -> None:
        return None

    @property
    def version(self) -> str:
        return f"run{self.number}"

    @property
    def experiment(self) -> Client:
        return Client()


class Client:
    def log_image(self, run_id: str, image: Any, artifact_file: str) -> None:
        assert run_id == "abc"
        assert artifact_file.endswith(".png")
        SHOWN.append(("LikeMLflow", artifact_file))
