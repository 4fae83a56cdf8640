"""Files that are whole or not there: written beside their place, made durable, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Give a file this content, durably; whatever ends the process, the file is the old one or the new one."""
    place = Path(path)
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    fsync_folder(place.parent)


def fsync_file(path: str | os.PathLike[str]) -> None:
    """Return when a file's content is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def fsync_folder(path: str | os.PathLike[str]) -> None:
    """Return when a folder's names are on the disk; on Windows the file system sees to it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
