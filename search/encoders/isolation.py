"""What a process gives up before it reads a file that nobody vouches for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000  # of sched.h
_CLONE_NEWNET = 0x40000000
_BASE_BYTES = 4 << 30  # of addresses, beside what the libraries have mapped and a few times the file
_FILE_TIMES = 4
_BASE_S = 120  # of processor time
_S_PER_GB = 60


def leave_network() -> bool:
    """Give up the network for this process; return whether the system let us.

    Linux lets root, and mostly also a process without threads: call it before numpy and torch start theirs.
    """
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return any(unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def bound(size_bytes: int) -> None:
    """Bound this process's memory and processor time to what a file of this size can need; no core is dumped.

    Call it once the libraries are loaded: CUDA's alone take gigabytes of addresses. Windows has no such limits.
    """
    if sys.platform == "win32":
        return
    import resource

    wanted = {
        resource.RLIMIT_AS: _mapped_bytes() + _BASE_BYTES + _FILE_TIMES * size_bytes,
        resource.RLIMIT_CPU: _BASE_S + _S_PER_GB * (size_bytes >> 30),
        resource.RLIMIT_CORE: 0,
    }
    for limit, amount in wanted.items():
        with contextlib.suppress(OSError, ValueError):  # the user's own limit is lower, or the system has none
            resource.setrlimit(limit, (amount, amount))


def _mapped_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return _BASE_BYTES
