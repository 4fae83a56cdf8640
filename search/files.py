"""Files that survive a power cut: what was written is on the disk, and so is its name."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def atomic_write(path: Path, data: bytes) -> None:
    """Give a file new content, all of it or none, durable when this returns; a new file is its owner's alone.

    Raises OSError; then the file is as it was.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Put on the disk what was written to a file, by whomever."""
    flags = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY
    _fsync(path, flags)


def fsync_folder(path: Path) -> None:
    """Put on the disk which names a folder holds. Windows keeps them by itself."""
    if sys.platform != "win32":
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
