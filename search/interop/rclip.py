"""rclip's database: one SQLite file with a row a photo.

Its layout up to version 4: https://github.com/yurijmikhalevich/rclip, rclip/db.py.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.adoption import Entry
from search.errors import UsageError

if TYPE_CHECKING:
    from search.types import Vectors

_FILE = "db.sqlite3"
_NEWEST = 4
_NUMBER = np.dtype("<f4")
_AT_ONCE = 500  # values in one IN (...)


def model_of(version: int) -> str:
    """Return the model that rclip used for a version of its database."""
    return "ViT-B-32-256/datacomp_s34b_b86k" if version >= 3 else "ViT-B-32-quickgelu/openai"


class RclipDatabase:
    """rclip's photos and vectors: a `search.adoption.Source`.

    path: of the database, or of the folder it is in.   Raises UsageError for anything else.
    """

    kind = "rclip"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        place = os.path.abspath(os.path.expanduser(path))
        self.place = os.path.join(place, _FILE) if os.path.isdir(place) else place
        if not os.path.isfile(self.place):
            raise UsageError(f"there is no {self.place}", hint=f"rclip keeps {_FILE} in its data folder")
        with _reading(self.place) as database:
            self.model = model_of(_version(database))
            self.entries, self.dim, self.left = _entries(database)

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return the vectors of rows by their ids, (N, dim) float32; of zeros for one that is no more."""
        found: dict[int, bytes] = {}
        with _reading(self.place) as database:
            for start in range(0, len(rows), _AT_ONCE):
                some = rows[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT id, vector FROM images WHERE id IN ({marks})"  # noqa: S608
                found.update(database.execute(query, some))
        size = self.dim * _NUMBER.itemsize
        blobs = [blob if len(blob := found.get(row, b"")) == size else bytes(size) for row in rows]
        return np.frombuffer(b"".join(blobs), _NUMBER).reshape(len(rows), self.dim).astype(np.float32)


@contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    """Open a database without a byte being written beside it, as SQLite would for one that has a log.

    Raises UsageError where it is none of rclip's.
    """
    logs = (path + "-wal", path + "-journal")
    if any(os.path.exists(log) and os.path.getsize(log) for log in logs):
        raise UsageError(f"{path} is in use, or rclip was cut short", hint="run rclip once to its end, then again")
    uri = f"{Path(path).as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.text_factory = os.fsdecode
            yield database
    except sqlite3.Error as error:
        raise UsageError(f"{path} is no database of rclip: {error}") from error


def _version(database: sqlite3.Connection) -> int:
    row = database.execute("SELECT version FROM db_version").fetchone()
    version = row[0] if row else 1
    if not isinstance(version, int) or version > _NEWEST:
        raise UsageError(f"this is version {version} of rclip's database; up to {_NEWEST} is known")
    return version


def _entries(database: sqlite3.Connection) -> tuple[list[Entry], int, Mapping[str, int]]:
    """Return the photos that have a vector, its width, and how many rows are left out and why."""
    found: list[Entry] = []
    left: Counter[str] = Counter()
    # One row cut short must not make all others seem too long.
    usual = "SELECT length(vector) FROM images WHERE deleted IS NOT 1 GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
    size_bytes = (database.execute(usual).fetchone() or (0,))[0] or 0
    dim = size_bytes // _NUMBER.itemsize
    rows = database.execute(
        "SELECT id, filepath, size, modified_at, deleted, length(vector) FROM images ORDER BY id"
    )
    for id_, path, size, modified, deleted, length in rows:
        if deleted:
            left["deleted"] += 1
        elif not dim or length != dim * _NUMBER.itemsize or not isinstance(path, str):
            left["malformed"] += 1
        else:
            found.append(Entry(path, id_, _number(size), _number(modified)))
    return found, dim, dict(left)


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) else None
