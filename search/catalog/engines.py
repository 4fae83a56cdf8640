"""Connections of SQLAlchemy to SQLite, where a catalog is written, copied or taken apart.

Whoever only asks a SQLite catalog needs none of this (search.catalog.lite).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.pool import QueuePool

from search.catalog import lite, seals
from search.catalog.places import make_file
from search.catalog.session import Row, Session, Values, lite_values
from search.files import fsync_file, fsync_folder

# 16 KiB pages hold float16 vectors with the least waste.
_WRITER_PRAGMAS = ("PRAGMA page_size = 16384", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
_SCRATCH_PRAGMAS = (
    "PRAGMA foreign_keys = OFF",  # tables are filled in any order
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)


class EngineSession(Session):
    """A session of SQLAlchemy, whatever it is connected to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect.name

    def rows(self, statement: str, values: Values | None = None) -> list[Row]:
        return [tuple(row) for row in self._connection.execute(text(statement), self._values(values or {}))]

    def parts(self, statement: str, values: Values, *, size: int) -> Iterator[list[Row]]:
        options = {"yield_per": size}
        result = self._connection.execute(text(statement), self._values(values), execution_options=options)
        for part in result.partitions():
            yield [tuple(row) for row in part]

    def has_table(self, name: str) -> bool:
        return inspect(self._connection).has_table(name)

    def _values(self, values: Values) -> dict[str, object]:
        return dict(lite_values(values) if self.dialect == "sqlite" else values)


def sqlite_reader(path: Path, mode: str) -> Engine:
    """Open a SQLite file for looking into it with SQLAlchemy."""
    return _sqlite(path, mode, begin="BEGIN")


def sqlite_writer(path: Path) -> Engine:
    """Open a SQLite catalog for writing: WAL and synchronous=FULL, so that a commit survives a power cut."""
    return _sqlite(path, "rwc", begin="BEGIN IMMEDIATE", pragmas=_WRITER_PRAGMAS)


def _sqlite(path: Path, mode: str, *, begin: str, pragmas: tuple[str, ...] = ()) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = lite.connect(path, mode, pragmas)
        seals.register(connection)
        return connection

    # Two connections that write are one too many: SQLite before 3.51.3 can lose a commit to their checkpoints.
    one = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0}
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, **(one if mode == "rwc" else {}))
    # The driver's own transaction handling is off: SQLite is told when a transaction begins, and writers say
    # so at once rather than failing half-way through.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


@contextmanager
def copying(source: Path, target: Path, *, page_size: int) -> Iterator[Connection]:
    """Yield one transaction on a new SQLite file that sees another one as `source`, which it can only read.

    The new file is whole when the block has been left, and durable once it was fsynced.
    """
    mode = "ro" if source.name == lite.CATALOG_NAME else lite.IMMUTABLE
    pragmas = (f"PRAGMA page_size = {page_size}", *_SCRATCH_PRAGMAS)
    engine = _sqlite(target, "rwc", begin="BEGIN IMMEDIATE", pragmas=pragmas)
    try:
        with engine.connect() as connection:
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute("ATTACH ? AS source", (lite.file_uri(source, mode),))
            with connection.begin():
                yield connection
    finally:
        engine.dispose()


def copy_to(connection: Connection, target: str) -> None:
    """Write a consistent copy of a SQLite catalog to a file, all of it or none, durable when this returns."""
    part = Path(f"{target}{lite.PART}")
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


def fold_back(engine: Engine) -> None:
    """Move what was committed from the write-ahead log into the catalog itself, as far as readers permit.

    The last connection to close does it by itself only if it may write, and the last may be a reader.
    """
    connection = engine.raw_connection()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
