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
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError
from sqlalchemy.pool import QueuePool

from search.catalog import seals
from search.errors import DamagedLibrary, LibraryBusy, LibraryError, StorageError

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
_SCRATCH_PRAGMAS = (
    "PRAGMA foreign_keys = OFF",  # tables are filled in any order
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)

# What SQLite says of a file that is not what it wrote; a table that a catalog of this revision must have is one too.
_DAMAGE = ("malformed", "not a database", "file is encrypted", "no such table", "no such column")


def is_url(library: str) -> bool:
    """Tell a SQLAlchemy URL from a folder."""
    return "://" in library


class Storage:
    """Opens reading and writing connections to one catalog.

    library: a folder, which holds catalog.db and the lock, or a SQLAlchemy URL of a database server.
    copy: a SQLite file that nobody writes any more, to read in the catalog's place.
    """

    def __init__(self, library: str, *, copy: Path | None = None) -> None:
        self.library = library
        self.folder = None if is_url(library) else Path(library)
        self._copy = copy
        self._reader: Engine | None = None

    def exists(self) -> bool:
        """Whether there is a database file; a server is taken at its word."""
        return self.folder is None or (self._copy or self.folder / CATALOG_NAME).is_file()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one consistent state."""
        if self._reader is None:
            self._reader = self._open()
        with storage_errors(self.library), self._reader.connect() as connection:
            yield connection

    def _open(self) -> Engine:
        if self.folder is None:
            return _server(self.library)
        if self._copy is not None:
            return _sqlite(self._copy, "mode=ro&immutable=1")
        return _sqlite(self.folder / CATALOG_NAME, _reading_flags(self.folder))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the one writing connection; each `with connection.begin()` is one durable transaction.

        Raises LibraryBusy if another process holds it, StorageError if the disk is full or not writable,
        DamagedLibrary where only a copy is left.
        """
        if self._copy is not None:
            raise damaged(self.library, "it is damaged or missing")
        if self.folder is None:
            engine = _server(self.library)
            with storage_errors(self.library), engine.connect() as connection:
                yield connection
            engine.dispose()
            return
        with storage_errors(self.library), writer_lock(self.folder):
            engine = _sqlite(
                self.folder / CATALOG_NAME, "mode=rwc", begin="BEGIN IMMEDIATE", pragmas=_WRITER_PRAGMAS
            )
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


def _reading_flags(folder: Path) -> str:
    """How to open the catalog to read; on a read-only medium SQLite can't make the files that WAL needs."""
    if os.access(folder, os.W_OK) or (folder / f"{CATALOG_NAME}-wal").exists():
        return "mode=ro"
    return "mode=ro&immutable=1"


def _uri(path: Path, flags: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{flags}"


def _sqlite(path: Path, flags: str, *, begin: str = "BEGIN", pragmas: tuple[str, ...] = ()) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(_uri(path, flags), uri=True, check_same_thread=False, isolation_level=None)
        seals.register(connection)
        for pragma in (*_PRAGMAS, *pragmas):
            connection.execute(pragma)
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    # The driver's own transaction handling is off: SQLite is told when a transaction begins, and writers say
    # so at once rather than failing half-way through.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


@contextmanager
def copying(source: Path, target: Path, *, page_size: int) -> Iterator[Connection]:
    """Yield one transaction on a new SQLite file that sees another one as `source`, which it can only read.

    The new file is whole when the block has been left, and durable once it was fsynced.
    """
    flags = _reading_flags(source.parent) if source.name == CATALOG_NAME else "mode=ro&immutable=1"
    engine = _sqlite(target, "mode=rwc", pragmas=(f"PRAGMA page_size = {page_size}", *_SCRATCH_PRAGMAS))
    try:
        with engine.connect() as connection:
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute("ATTACH ? AS source", (_uri(source, flags),))
            with connection.begin():
                yield connection
    finally:
        engine.dispose()


def copy_to(connection: Connection, target: str) -> None:
    """Write a consistent copy of a SQLite catalog to a file that does not exist yet."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute("VACUUM INTO ?", (target,))


def compact(connection: Connection) -> None:
    """Write a SQLite catalog anew without the space of what was deleted; servers do so by themselves."""
    if connection.dialect.name == "sqlite":
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute("VACUUM")


def _fold_back(engine: Engine) -> None:
    """Move what was committed from the write-ahead log into the catalog itself, as far as readers permit.

    The last connection to close does it by itself only if it may write, and the last may be a reader.
    """
    connection = engine.raw_connection()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def damaged(library: str, cause: str) -> DamagedLibrary:
    """Return the error for a catalog that can't be read."""
    return DamagedLibrary(f"the catalog of {library} can't be read: {cause}", hint="run 'search rebuild'")


@contextmanager
def storage_errors(library: str) -> Iterator[None]:
    """Tell what SQLite raises as errors of the library."""
    try:
        yield
    except (IntegrityError, sqlite3.IntegrityError):
        raise  # a mistake of ours, not of the disk
    except (DatabaseError, sqlite3.DatabaseError) as error:
        cause = str(error.orig if isinstance(error, DatabaseError) else error)
        if "full" in cause or "readonly" in cause or "disk I/O" in cause or "unable to open" in cause:
            raise StorageError(
                f"can't write to the library {library}: {cause}",
                hint="free some space or check permissions; everything committed before is kept",
            ) from error
        if "locked" in cause:
            raise LibraryBusy(f"{library} is locked by another program", hint="try again") from error
        if any(sign in cause for sign in _DAMAGE):
            raise damaged(library, cause) from error
        raise LibraryError(f"the catalog of {library} failed: {cause}") from error


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
