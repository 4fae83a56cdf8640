"""Where the catalog's database is and how it is opened.

SQLite in WAL mode with synchronous=FULL: a commit that returned survives a power cut. One process writes at a
time, named in the lock file; any number read, through connections that cannot write.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import QueuePool

from search.catalog import seals
from search.errors import LibraryBusy, LibraryError, StorageError

CATALOG_NAME = "catalog.db"
LOCK_NAME = "writer.lock"

# 16 KiB pages hold float16 vectors with the least waste; the rest is safety against damaged files.
_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA mmap_size = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_WRITER_PRAGMAS = ("PRAGMA page_size = 16384", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")


def is_url(library: str) -> bool:
    """Tell a SQLAlchemy URL from a folder."""
    return "://" in library


class Storage:
    """Opens reading and writing connections to one catalog.

    library: a folder, which holds catalog.db and the lock, or a SQLAlchemy URL of a database server.
    """

    def __init__(self, library: str) -> None:
        self.library = library
        self.folder = None if is_url(library) else Path(library)
        self._reader: Engine | None = None

    def exists(self) -> bool:
        """Whether there is a database file; a server is taken at its word."""
        return self.folder is None or (self.folder / CATALOG_NAME).is_file()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one consistent state."""
        if self._reader is None:
            self._reader = _server(self.library) if self.folder is None else _sqlite(self.folder, "ro")
        with _storage_errors(self.library), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the one writing connection; each `with connection.begin()` is one durable transaction.

        Raises LibraryBusy if another process holds it, StorageError if the disk is full or not writable.
        """
        if self.folder is None:
            engine = _server(self.library)
            with _storage_errors(self.library), engine.connect() as connection:
                yield connection
            engine.dispose()
            return
        with _storage_errors(self.library), writer_lock(self.folder):
            engine = _sqlite(self.folder, "rwc")
            try:
                with engine.connect() as connection:
                    yield connection
                _fold_back(engine)
            finally:
                engine.dispose()

    def close(self) -> None:
        """Close what is open; the object can be used again."""
        if self._reader is not None:
            self._reader.dispose()
            self._reader = None


def _server(url: str) -> Engine:
    """Open a database by URL. Raises LibraryError for a URL or driver that is not there."""
    try:
        engine = create_engine(url)
    except (ArgumentError, ImportError) as error:
        raise LibraryError(
            f"can't open a database at {url}: {error}", hint="check the URL and its driver"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: seals.register(connection))
    return engine


def _sqlite(folder: Path, mode: str) -> Engine:
    path = folder / CATALOG_NAME
    flags = f"mode={mode}"
    if mode == "ro" and not os.access(folder, os.W_OK) and not Path(f"{path}-wal").exists():
        flags += "&immutable=1"  # on a read-only medium SQLite can't make the files that WAL needs

    def connect() -> sqlite3.Connection:
        uri = f"file:{quote(os.fsencode(path))}?{flags}"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        seals.register(connection)
        for pragma in (*_PRAGMAS, *(_WRITER_PRAGMAS if mode == "rwc" else ())):
            connection.execute(pragma)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    # The driver's own transaction handling is off: SQLite is told when a transaction begins, and writers say
    # so at once rather than failing half-way through.
    begin = "BEGIN IMMEDIATE" if mode == "rwc" else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def copy_to(connection: Connection, target: str) -> None:
    """Write a consistent copy of a SQLite catalog to a file that does not exist yet."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute("VACUUM INTO ?", (target,))


def _fold_back(engine: Engine) -> None:
    """Move what was committed from the write-ahead log into the catalog itself, as far as readers permit.

    The last connection to close does it by itself only if it may write, and the last may be a reader.
    """
    connection = engine.raw_connection()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


@contextmanager
def _storage_errors(library: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        cause = str(error.orig)
        if "full" in cause or "readonly" in cause or "disk I/O" in cause or "unable to open" in cause:
            raise StorageError(
                f"can't write to the library {library}: {cause}",
                hint="free some space or check permissions; everything committed before is kept",
            ) from error
        if "locked" in cause:
            raise LibraryBusy(f"{library} is locked by another program", hint="try again") from error
        raise LibraryError(f"the catalog of {library} failed: {cause}") from error
    except IntegrityError:
        raise  # a mistake of ours, not of the disk
    except DatabaseError as error:
        raise LibraryError(
            f"the catalog of {library} can't be read: {error.orig}", hint="restore it from a copy"
        ) from error


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the library for writing; the file says who does.

    The lock belongs to the open file, so it goes with the process however that ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / LOCK_NAME).open("a+")
    except OSError as error:
        raise StorageError(f"can't write to the library {folder}: {error.strerror}") from error
    with lock as file:
        if not _try_lock(file.fileno()):
            raise LibraryBusy(f"{folder} is being written to by {_holder(folder)}", hint="wait for it or stop it")
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": sys.argv[0]}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_held(folder: Path) -> bool:
    """Whether a process holds the library for writing. Asking takes the lock for a moment where it is free."""
    try:
        with (folder / LOCK_NAME).open("rb") as lock:
            return not _try_lock(lock.fileno())
    except OSError:
        return False


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / LOCK_NAME).read_text())
        return f"process {holder['pid']} on {holder['host']} ({holder['command']})"
    except (OSError, ValueError, KeyError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
