"""Parts of a mapped file, asked for before they are read: all at once, and nothing of what lies around them.

A page that is merely come upon is waited for, and up to megabytes around it are read as well, as the system is set:
gigabytes for the first queries over ten million rows, of which each looks at some thousand.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Offsets = npt.NDArray[np.int64]

_MANY = 64  # parts; asking for thousands takes milliseconds
_RESTS = 15  # times not even many are asked for, after all of many were in memory


class Pages:
    """Those of one array. Where it does not map a whole file, or the system can't be asked, nothing happens."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        base: object = array.base
        self._mapped = base if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED") else None
        self._rests = 0

    def ask(self, starts: Offsets, sizes: Offsets | int) -> None:
        """Have parts read.   starts: ascending, in bytes.   sizes: in bytes, above 0."""
        if self._mapped is None or not len(starts):
            return
        if self._rests and len(starts) > _MANY:
            self._rests -= 1
            return
        before = _blocks_read()
        with contextlib.suppress(OSError):  # then it is read as it is come upon
            for start, stop in runs(starts, sizes):
                self._mapped.madvise(mmap.MADV_WILLNEED, start, min(stop, len(self._mapped)) - start)
        if len(starts) > _MANY and before is not None and _blocks_read() == before:
            self._rests = _RESTS


def runs(starts: Offsets, sizes: Offsets | int) -> Iterator[tuple[int, int]]:
    """Where the pages that parts lie on begin and end, in bytes; those side by side are put together."""
    first, last = starts // mmap.PAGESIZE, (starts + sizes - 1) // mmap.PAGESIZE
    cuts = np.flatnonzero(first[1:] > last[:-1] + 1)
    begins, ends = first[np.r_[0, cuts + 1]], last[np.r_[cuts, -1]] + 1
    yield from zip((begins * mmap.PAGESIZE).tolist(), (ends * mmap.PAGESIZE).tolist(), strict=True)


def _blocks_read() -> int | None:
    """What this thread had read from disks so far, None where the system does not tell (Linux does)."""
    try:
        from resource import RUSAGE_THREAD, getrusage
    except ImportError:
        return None
    return getrusage(RUSAGE_THREAD).ru_inblock
