"""Vectors of texts that were embedded before, by any process: what is asked twice is computed once.

Beside the recipes, in one SQLite file for texts and one for label sets. A text itself is never written, only a hash
of it and of the model's fingerprint. The files are caches: one that is damaged is begun anew, and where none can be
read or written all is computed as if there were none.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from search import files

if TYPE_CHECKING:
    from search.types import Vectors

T = TypeVar("T")

_VERSION = (
    b"1"  # another when a text tower or tokenizer of ours computes otherwise: what was kept is not found then
)
_TIMEOUT_S = 0.05  # another process holds the file for milliseconds; to compute a vector takes little longer
_MOST_TEXTS = 20_000  # 40 MiB at 512 numbers a vector
_MOST_SETS = 8
_MOST_BYTES = 2**26  # of one entry
_CREATE = """
CREATE TABLE IF NOT EXISTS kept (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, tokens INTEGER NOT NULL, crc INTEGER NOT NULL,
    vectors BLOB NOT NULL
)"""


@dataclass(frozen=True, slots=True)
class Entry:
    """Rows (N, D) float32 and a number of tokens that goes with them."""

    rows: Vectors
    tokens: int


class Memory:
    """What a folder remembers of the texts and label sets of one model.

    fingerprint: the model's.   dim: the width of its vectors.
    """

    def __init__(self, folder: Path, fingerprint: str, dim: int) -> None:
        self._fingerprint = fingerprint
        self._dim = dim
        self._texts = _Store(folder / "texts.db", _MOST_TEXTS)
        self._sets = _Store(folder / "labels.db", _MOST_SETS)

    def of_texts(self, texts: Sequence[str]) -> list[Entry | None]:
        """Return what is remembered of each text: a row, and how many tokens it needs."""
        keys = [self._key([text]) for text in texts]
        found = self._texts.get(set(keys), self._dim)
        return [found.get(key) for key in keys]

    def keep_texts(self, entries: Mapping[str, Entry]) -> None:
        """Remember texts; beyond some number the oldest are forgotten."""
        self._texts.put({self._key([text]): entry for text, entry in entries.items()})

    def of_set(self, parts: Sequence[Sequence[str]], make: Callable[[], Entry]) -> Entry:
        """Return what `make` gives for the prompts of several classes: as remembered, else computed and kept."""
        key = self._key(text for part in parts for text in (str(len(part)), *part))
        if found := self._sets.get({key}, self._dim).get(key):
            return found
        entry = make()
        self._sets.put({key: entry})
        return entry

    def _key(self, texts: Iterable[str]) -> bytes:
        digest = hashlib.blake2b(_VERSION + self._fingerprint.encode(), digest_size=24)
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()


class _Store:
    """Entries by key in an SQLite file; `most` of them stay, the newest.

    Every call opens the file and closes it: that takes a tenth of a millisecond, and no thread or process has to
    mind another.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path = path
        self._most = most

    def get(self, keys: set[bytes], dim: int) -> dict[bytes, Entry]:
        """Return those of the keys that are here, whole and of this width."""
        if not self._path.is_file():
            return {}
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, tokens, crc, vectors FROM kept WHERE key IN ({marks})"  # noqa: S608 only marks
        rows = self._try(lambda database: database.execute(query, list(keys)).fetchall()) or []
        entries = {key: _entry(key, tokens, crc, data, dim) for key, tokens, crc, data in rows}
        if damaged := [(key,) for key, entry in entries.items() if entry is None]:
            self._try(lambda database: database.executemany("DELETE FROM kept WHERE key = ?", damaged))
        return {key: entry for key, entry in entries.items() if entry is not None}

    def put(self, entries: Mapping[bytes, Entry]) -> None:
        """Keep entries; one that is here already stays as it is."""
        rows = [_row(key, entry) for key, entry in entries.items() if entry.rows.nbytes <= _MOST_BYTES]
        with contextlib.suppress(OSError):
            self._path.touch(0o600)  # what was asked for is nobody else's business, not even as a hash
            self._try(lambda database: self._insert(database, rows))

    def _insert(self, database: sqlite3.Connection, rows: list[tuple[bytes, int, int, bytes]]) -> None:
        database.execute("PRAGMA synchronous = OFF")  # damaged by a power cut, the file is begun anew
        database.execute("BEGIN IMMEDIATE")
        database.execute(_CREATE)
        database.executemany("INSERT OR IGNORE INTO kept (key, tokens, crc, vectors) VALUES (?, ?, ?, ?)", rows)
        database.execute("DELETE FROM kept WHERE number <= (SELECT max(number) FROM kept) - ?", [self._most])
        database.execute("COMMIT")

    def _try(self, act: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something with the open file; None where that can't be, and a damaged file is removed."""
        try:
            database = sqlite3.connect(self._path, timeout=_TIMEOUT_S, isolation_level=None)
            with contextlib.closing(database):
                return act(database)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                files.discard(self._path.with_name(f"{self._path.name}-journal"))  # it must not meet the next file
                files.discard(self._path)
            return None


def _row(key: bytes, entry: Entry) -> tuple[bytes, int, int, bytes]:
    data = np.ascontiguousarray(entry.rows, dtype="<f4").tobytes()
    return key, entry.tokens, _crc(key, entry.tokens, data), data


def _entry(key: bytes, tokens: int, crc: int, data: bytes, dim: int) -> Entry | None:
    """SQLite does not look into what it stores; what is not as it was kept is not there."""
    if not isinstance(data, bytes) or not isinstance(tokens, int) or crc != _crc(key, tokens, data):
        return None
    if not data or len(data) % (4 * dim):
        return None
    return Entry(np.frombuffer(data, dtype="<f4").reshape(-1, dim).astype(np.float32), tokens)


def _crc(key: bytes, tokens: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key + str(tokens).encode()))
