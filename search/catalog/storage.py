"""Where the catalog's database is and how it is opened.

SQLite in WAL mode with synchronous=FULL: a commit that returned survives a power cut. One process writes at a
time, named in the lock file; any number read, through connections that cannot write.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import QueuePool

from search.catalog import seals
from search.catalog.failures import damaged, is_of_disk, storage_errors
from search.catalog.lock import writer_lock
from search.catalog.places import make_file, refuse_foreign, refuse_network
from search.errors import LibraryBusy, LibraryError
from search.files import fsync_file, fsync_folder

CATALOG_NAME = "catalog.db"

# 16 KiB pages hold float16 vectors with the least waste; the rest is safety against damaged files.
_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA mmap_size = 0",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_LOGS = ("-wal", "-journal")
_COPY_TRIES = 3
_PART = ".part"  # a copy that is being made
_WRITER_PRAGMAS = ("PRAGMA page_size = 16384", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
_SCRATCH_PRAGMAS = (
    "PRAGMA foreign_keys = OFF",  # tables are filled in any order
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)


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
        self._admitted = False
        self._frozen = False  # whether the reader sees nothing that is committed from now on
        self._forget_copy: Callable[[], object] | None = None

    def exists(self) -> bool:
        """Whether there is a database file; a server is taken at its word."""
        return self.folder is None or (self._copy or self.folder / CATALOG_NAME).is_file()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one consistent state."""
        with storage_errors(self.library):
            if self._reader is None:
                self._reader = self._open()
            with self._reader.connect() as connection:
                yield connection

    def _open(self) -> Engine:
        if self.folder is None:
            return _server(self.library)
        return _sqlite(self._copy, "ro&immutable=1") if self._copy else self._open_reader(self.folder)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the one writing connection; each `with connection.begin()` is one durable transaction.

        Raises LibraryBusy if another process holds it, StorageError if the disk is full or not writable.
        """
        if self._copy is not None:
            raise damaged(self.library, "it is damaged or missing")
        if self.folder is None:
            engine = _server(self.library)
            with storage_errors(self.library), engine.connect() as connection:
                yield connection
            engine.dispose()
            return
        self._admit(self.folder)
        with storage_errors(self.library), writer_lock(self.folder):
            if self._frozen:
                self.close()
            make_file(self.folder / CATALOG_NAME)
            for left_behind in self.folder.glob(f"{CATALOG_NAME}.*{_PART}"):
                left_behind.unlink()
            engine = _sqlite(self.folder / CATALOG_NAME, "rwc", pragmas=_WRITER_PRAGMAS)
            try:
                with engine.connect() as connection:
                    yield connection
                _fold_back(engine)
            finally:
                engine.dispose()

    def _admit(self, folder: Path) -> None:
        """Refuse a folder where a library is not safe, once. Raises LibraryError."""
        if not self._admitted:
            refuse_network(folder)
            refuse_foreign(folder)
            self._admitted = True

    def _open_reader(self, folder: Path) -> Engine:
        """Open for reading, on a read-only or full disk too, where SQLite can't make the files that WAL needs."""
        self._admit(folder)
        if not os.access(folder, os.W_OK):
            self._frozen = True
            return (
                self._open_copy(folder)
                if _left(folder, *_LOGS)
                else _sqlite(folder / CATALOG_NAME, "ro&immutable=1")
            )
        if _left(folder, "-journal"):
            _roll_back(folder)
        engine = _sqlite(folder / CATALOG_NAME, "ro")
        try:
            _look(engine)
        except OperationalError as error:
            engine.dispose()
            if not is_of_disk(error) or not _left(folder, "-wal"):
                raise
            return self._open_copy(folder)
        return engine

    def _open_copy(self, folder: Path) -> Engine:
        """Open a copy: what was committed last is in a log alone, or the catalog holds half of a lost commit."""
        copy = _private_copy(folder)
        self._frozen = True
        self._forget_copy = weakref.finalize(self, _remove_tree, copy)
        _roll_back(copy)
        return _sqlite(copy / CATALOG_NAME, "ro")

    def close(self) -> None:
        """Close what is open; the object can be used again."""
        if self._reader is not None:
            self._reader.dispose()
            self._reader = None
            self._frozen = False
        if self._forget_copy is not None:
            self._forget_copy()
            self._forget_copy = None


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


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(os.fsencode(path))}?mode={mode}"


def _sqlite(path: Path, mode: str, *, pragmas: tuple[str, ...] = ()) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(_uri(path, mode), uri=True, check_same_thread=False, isolation_level=None)
        seals.register(connection)
        for pragma in (*_PRAGMAS, *pragmas):
            connection.execute(pragma)
        return connection

    # Two connections that write are one too many: SQLite before 3.51.3 can lose a commit to their checkpoints.
    one = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0}
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, **(one if mode == "rwc" else {}))
    # The driver's own transaction handling is off: SQLite is told when a transaction begins, and writers say
    # so at once rather than failing half-way through.
    begin = "BEGIN IMMEDIATE" if mode == "rwc" else "BEGIN"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


@contextmanager
def copying(source: Path, target: Path, *, page_size: int) -> Iterator[Connection]:
    """Yield one transaction on a new SQLite file that sees another one as `source`, which it can only read.

    The new file is whole when the block has been left, and durable once it was fsynced.
    """
    mode = "ro" if source.name == CATALOG_NAME else "ro&immutable=1"
    engine = _sqlite(target, "rwc", pragmas=(f"PRAGMA page_size = {page_size}", *_SCRATCH_PRAGMAS))
    try:
        with engine.connect() as connection:
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute("ATTACH ? AS source", (_uri(source, mode),))
            with connection.begin():
                yield connection
    finally:
        engine.dispose()


def copy_to(connection: Connection, target: str) -> None:
    """Write a consistent copy of a SQLite catalog to a file, all of it or none, durable when this returns."""
    part = Path(f"{target}{_PART}")
    part.unlink(missing_ok=True)
    make_file(part)
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute("VACUUM INTO ?", (str(part),))
    fsync_file(part)
    part.replace(target)
    fsync_folder(part.parent)


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


def _left(folder: Path, *logs: str) -> list[Path]:
    """Return which of SQLite's logs lie beside a catalog with something in them."""
    paths = [folder / f"{CATALOG_NAME}{log}" for log in logs]
    return [path for path in paths if path.exists() and path.stat().st_size]


def _look(engine: Engine) -> None:
    """Read something: only then does SQLite open its files."""
    with engine.begin() as connection:
        connection.execute(text("SELECT count(*) FROM sqlite_schema"))


def _roll_back(folder: Path) -> None:
    """Undo what a process that was killed left half done, which a reader may not; a live one sees to it itself."""
    with contextlib.suppress(LibraryBusy), writer_lock(folder):
        engine = _sqlite(folder / CATALOG_NAME, "rw")
        try:
            _look(engine)
        finally:
            engine.dispose()


def _private_copy(folder: Path) -> Path:
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
        _remove_tree(copy)
        raise
    _remove_tree(copy)
    raise LibraryBusy(f"{folder} is read-only here and another program keeps writing to it", hint="try again")


def _version(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _remove_tree(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
