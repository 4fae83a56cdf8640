"""The failing disk, compiled on the spot, and the memory through which it is told when to fail."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KINDS = ("write", "sync", "truncate", "rename", "lock", "unlink", "mkdir", "create")


class Control(ctypes.Structure):
    """`struct control` of failing_disk.c."""

    _fields_ = (
        ("folder", ctypes.c_char * 512),
        *((name, ctypes.c_int64) for name in ("fail_at", "for_good", "kinds", "error", "calls", "failed")),
        ("by_kind", ctypes.c_int64 * len(KINDS)),
    )


@dataclass
class FailingDisk:
    """What a process needs in its environment to have one, and what tells it to fail."""

    control: Control
    environment: dict[str, str]


@contextmanager
def failing_disk(folder: Path) -> Iterator[FailingDisk | None]:
    """Yield a disk that does not fail yet; None where there is no compiler or no LD_PRELOAD."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        yield None
        return
    library, settings = folder / "failing_disk.so", folder / "control"
    source = Path(__file__).with_name("failing_disk.c")
    flags = ["-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", library, source, "-ldl"], check=True)
    settings.write_bytes(bytes(ctypes.sizeof(Control)))
    with settings.open("r+b") as file:
        control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
    yield FailingDisk(control, {"LD_PRELOAD": str(library), "FAILING_DISK": str(settings)})
