from __future__ import annotations

import os
from pathlib import Path

import pytest

from adv_lightning.data.atomic_write import partial_file, write_atomically


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writes_into_new_folders_and_over_old_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    for text in (b"first", b"second"):
        write_atomically(path, text)
        assert content(path.parent) == {"c.json": text}


def test_shows_nothing_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")
    with partial_file(path) as file:
        file.write(b"ne")
        file.write(b"w")
        assert path.read_bytes() == b"old"
    assert content(tmp_path) == {"a.ckpt": b"new"}


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")

    def write() -> None:
        with partial_file(path) as file:
            file.write(b"half of the new")
            raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write()
    assert content(tmp_path) == {"a.ckpt": b"old"}


def test_failure_to_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError("disk full")

    path = tmp_path / "a.json"
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert content(tmp_path) == {}
