"""SQLite files opened for reading, without anything between: a query must not wait for what only writing needs.

A reader's connections can't write. On a disk where SQLite can't make the files that its log needs, the catalog is
read as it lies or from a copy of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from search.catalog.failures import is_of_disk
from search.catalog.session import LiteSession, Session
from search.errors import LibraryBusy

CATALOG_NAME = "catalog.db"
PART = ".part"
"""The end of the name of a copy that is being made."""

# Safety against damaged files, and patience with the writer.
_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA mmap_size = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_LOGS = ("-wal", "-journal")
_COPY_TRIES = 3
_MOST_IDLE = 8
IMMUTABLE = "ro&immutable=1"
"""How a file is opened that nobody writes any more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Where a catalog can be read from.

    frozen: whether what is committed from now on is not seen there.   made: a folder that was made for it, to remove.
    """

    path: Path
    mode: str
    frozen: bool = False
    made: Path | None = None


def connect(path: Path, mode: str, pragmas: tuple[str, ...] = ()) -> sqlite3.Connection:
    """Open a SQLite file; transactions begin and end where they are said to.   mode: as SQLite's URIs have it."""
    connection = sqlite3.connect(file_uri(path, mode), uri=True, check_same_thread=False, isolation_level=None)
    try:
        for pragma in (*_PRAGMAS, *pragmas):
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def file_uri(path: Path, mode: str) -> str:
    """Return the name by which SQLite opens a file in a mode."""
    return f"file:{quote(os.fsencode(path))}?mode={mode}"


class Pool:
    """Connections to one SQLite file, each used by one thread at a time."""

    def __init__(self, path: Path, mode: str) -> None:
        self._path, self._mode = path, mode
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Yield a session that sees what was committed before it first asks, and nothing later."""
        connection = self._take()
        try:
            connection.execute("BEGIN")
            session = LiteSession(connection)
            yield session
            session.close()
            connection.execute("ROLLBACK")
        except BaseException:  # what was left half read must not be met by the next
            connection.close()
            raise
        self._put_back(connection)

    def close(self) -> None:
        """Close what is idle now, and what is in use as soon as it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return connect(self._path, self._mode)

    def _put_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()


def find_readable(folder: Path) -> Opened:
    """Return where a folder's catalog can be read, on a read-only or full disk too. Raises LibraryBusy."""
    catalog = folder / CATALOG_NAME
    if not os.access(folder, os.W_OK):
        return _private(folder) if _left(folder, *_LOGS) else Opened(catalog, IMMUTABLE, frozen=True)
    if _left(folder, "-journal"):
        _roll_back(folder)
    try:
        _look(catalog, "ro")
    except sqlite3.OperationalError as error:
        if not is_of_disk(error) or not _left(folder, "-wal"):
            raise
        return _private(folder)
    return Opened(catalog, "ro")


def _private(folder: Path) -> Opened:
    """Make a copy to read: what was committed last is in a log alone, or the catalog holds half of a lost commit."""
    copy = _copied(folder)
    try:
        _roll_back(copy)
    except BaseException:
        remove_tree(copy)
        raise
    return Opened(copy / CATALOG_NAME, "ro", frozen=True, made=copy)


def _look(path: Path, mode: str) -> None:
    """Read something: only then does SQLite open its files."""
    with contextlib.closing(connect(path, mode)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def has_logs(folder: Path) -> bool:
    """Whether SQLite left a log with something in it beside the catalog."""
    return bool(_left(folder, *_LOGS))


def _left(folder: Path, *logs: str) -> list[Path]:
    """Return which of SQLite's logs lie beside a catalog with something in them."""
    paths = [folder / f"{CATALOG_NAME}{log}" for log in logs]
    return [path for path in paths if path.exists() and path.stat().st_size]


def _roll_back(folder: Path) -> None:
    """Undo what a process that was killed left half done, which a reader may not; a live one sees to it itself."""
    from search.catalog.lock import writer_lock  # what a reader seldom needs

    with contextlib.suppress(LibraryBusy), writer_lock(folder):
        _look(folder / CATALOG_NAME, "rw")


def _copied(folder: Path) -> Path:
    """Copy a catalog and its log, both of one moment, into a new folder of their own. Raises LibraryBusy."""
    import shutil
    import tempfile

    files = [folder / CATALOG_NAME, *_left(folder, *_LOGS)]
    copy = Path(tempfile.mkdtemp(prefix="search-"))
    try:
        for _ in range(_COPY_TRIES):
            before = [_version(file) for file in files]
            for file in files:
                shutil.copyfile(file, copy / file.name)
            if before == [_version(file) for file in files]:
                return copy
    except BaseException:
        remove_tree(copy)
        raise
    remove_tree(copy)
    raise LibraryBusy(f"{folder} is read-only here and another program keeps writing to it", hint="try again")


def _version(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def remove_tree(folder: Path) -> None:
    """Remove a folder with what is in it, as far as that is possible."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
