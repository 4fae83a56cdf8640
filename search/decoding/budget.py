"""How many children decode by default: as many as the cores keep busy and the memory can feed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CHILD_BYTES = 800_000_000
"""What a child takes at most for a picture of 48 megapixels: a WebP; a JPEG takes a twentieth (bench/memory.py)."""

_SHARE = 0.5  # of the memory that is free, for all children together; the model needs some, other programs too
_MOST = 8
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def default_workers(*, cores: int | None = None, free_bytes: int | None = None) -> int:
    """Return how many children are worth having: one a core and one that works while another awaits its next file.

    No more than half of the free memory can feed with pictures of 48 megapixels, one at least.   cores, free_bytes:
    those of this machine if left out.
    """
    cores = cores or os.cpu_count() or 1
    free = free_memory() if free_bytes is None else free_bytes
    return max(1, min(_MOST, cores + 1, int(_SHARE * free / CHILD_BYTES)))


def free_memory() -> int:
    """Return the bytes that a new program could have: of the machine, or of the container if that has fewer."""
    return min(_of_the_machine(), *(_left(*map(Path, group)) for group in _LIMITS))


def _of_the_machine() -> int:
    try:  # psutil takes 19 ms to import
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        import psutil  # type: ignore[import-untyped]

        return int(psutil.virtual_memory().available)


def _left(limit: Path, used: Path, stat: Path) -> int:
    """Return what a control group has left; as much as can be where there is none or it has no limit.

    What it holds of files that were read counts as used there, and is given back when somebody needs it.
    """
    try:
        left = int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))
    except (OSError, ValueError):  # ValueError: "max"
        return 2**63
    with contextlib.suppress(OSError, ValueError):
        kinds = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
        left += int(kinds.get("total_inactive_file", kinds.get("inactive_file", 0)))
    return max(0, left)
