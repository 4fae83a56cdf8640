"""Every row of a float16 array scored where it lies, mapped files included.

The array is never copied as a whole. A few thousand rows are done by numpy; beyond, FAISS's scanner is several
times faster than numpy can turn float16 into float32, and worth its import.
"""

from __future__ import annotations

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Halves, Vectors

    Positions = npt.NDArray[np.int64]
    Bits = npt.NDArray[np.uint8]
    """One bit a row, the lowest first: which are permitted."""

FEW = 8192
"""Rows up to which importing FAISS would cost more than it saves."""
_CHUNK = 2048  # rows turned into float32 at a time
_MANY = 16  # queries from which a matrix product pays for turning every row into float32
_WORTH_A_THREAD = 64 << 20  # bytes
_MOST_THREADS = 4


def prepare() -> None:
    """Import FAISS beside what the caller does next: that takes longer than a search."""

    def load() -> None:
        with contextlib.suppress(ImportError):  # the search will say so
            import faiss  # noqa: F401

    if "faiss" not in sys.modules:
        Thread(target=load, name="faiss").start()


def top(halves: Halves, queries: Vectors, count: int, *, permitted: Bits | None = None) -> list[Positions]:
    """Return the positions of the highest dot products of each query, in no order: at most `count` of each.

    halves: (N, D) contiguous.   queries: (Q, D) float32.   permitted: (ceil(N / 8),) bits.
    """
    if not len(halves):
        return [np.empty(0, np.int64) for _ in queries]
    if len(halves) <= FEW or len(queries) >= _MANY:
        return _by_product(halves, queries, count, permitted)
    return [scanned(halves, query, count, permitted=permitted) for query in queries]


def _by_product(halves: Halves, queries: Vectors, count: int, permitted: Bits | None) -> list[Positions]:
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(halves), _CHUNK):
        part = halves[start : start + _CHUNK].astype(np.float32)
        some = np.arange(start, start + len(part))
        if permitted is not None:
            bits = permitted[start // 8 : -(-(start + len(part)) // 8)]  # chunks begin at whole bytes
            passing = np.unpackbits(bits, count=len(part), bitorder="little").astype(bool)
            part, some = part[passing], some[passing]
        scores = np.concatenate([scores, queries @ part.T], axis=1)
        places = np.concatenate([places, np.tile(some, (len(queries), 1))], axis=1)
        if scores.shape[1] > count:
            order = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
    return list(places)


def scanned(halves: Halves, query: Vectors, count: int, *, permitted: Bits | None = None) -> Positions:
    """Do what `top` does for one query, (D,), by FAISS's scanner whatever the number of rows."""
    if not len(halves):
        return np.empty(0, np.int64)
    slices = _slices(len(halves), halves.nbytes)
    found: list[tuple[npt.NDArray[np.float32], Positions]] = [
        (np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64)) for _ in slices
    ]

    def scan(number: int) -> None:
        part = slices[number]
        bits = None if permitted is None else permitted[part.start // 8 : -(-part.stop // 8)]
        _scan(halves[part], query, *found[number], bits)
        found[number][1][found[number][1] >= 0] += part.start

    if len(slices) == 1:
        scan(0)
    else:
        with ThreadPoolExecutor(len(slices), "scan") as pool:
            for done in [pool.submit(scan, number) for number in range(len(slices))]:
                done.result()
    scores, places = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(-scores)[:count]
    return places[order][places[order] >= 0]


def _scan(
    halves: Halves, query: Vectors, scores: npt.NDArray[np.float32], places: Positions, bits: Bits | None
) -> None:
    """Fill a heap of the best scores and their places; those left over stay -inf and -1."""
    import faiss

    quantizer: Any = faiss.ScalarQuantizer(halves.shape[1], faiss.ScalarQuantizer.QT_fp16)
    chosen = None if bits is None else faiss.IDSelectorBitmap(np.ascontiguousarray(bits))  # type: ignore[call-arg, arg-type]
    # True: it tells positions, and asks the selector for them, rather than looking up ids.
    scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, chosen, False)
    vector = np.ascontiguousarray(query, np.float32)
    scanner.set_query(faiss.swig_ptr(vector))
    scanner.set_list(0, 0.0)
    codes = halves.view(np.uint8).reshape(-1)
    addresses = (faiss.swig_ptr(array) for array in (scores, places))
    scanner.scan_codes(len(halves), faiss.swig_ptr(codes), None, *addresses, len(scores))


def _slices(rows: int, size_bytes: int) -> list[slice]:
    """Part rows among threads, at whole bytes of a bitmap."""
    threads = max(1, min(size_bytes // _WORTH_A_THREAD, os.cpu_count() or 1, _MOST_THREADS))
    step = max(8, -(-rows // threads // 8) * 8)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
