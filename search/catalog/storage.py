"""Where the catalog's database is and how it is opened.

SQLite in WAL mode with synchronous=FULL: a commit that returned survives a power cut. One process writes at a
time, named in the lock file; any number read, through connections that cannot write. What reads a SQLite catalog
imports no SQLAlchemy, which takes longer than a query; what writes it, or speaks to a server, does. What a server
does its own way is in search.catalog.server.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.catalog import lite
from search.catalog.failures import damaged, storage_errors
from search.catalog.lite import CATALOG_NAME
from search.catalog.places import is_url, make_file, refuse_foreign, refuse_network, shown

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from search.catalog.session import Session

__all__ = ["CATALOG_NAME", "Storage", "is_url"]


class Storage:
    """Opens reading and writing connections to one catalog.

    library: a folder, which holds catalog.db and the lock, or a SQLAlchemy URL of a database server.
    copy: a SQLite file that nobody writes any more, to read in the catalog's place.
    """

    def __init__(self, library: str, *, copy: Path | None = None) -> None:
        self.library = shown(library)
        self.folder = None if is_url(library) else Path(library)
        self._url = library
        self._copy = copy
        self._opening = threading.Lock()
        self._opened: lite.Opened | None = None
        self._pool: lite.Pool | None = None
        self._engine: Engine | None = None  # of a server, or where SQLite is read with SQLAlchemy
        self._held: Connection | None = None  # to a server, while this object has the right to write
        self._admitted = False
        self._forget_copy: Callable[[], object] | None = None

    def exists(self) -> bool:
        """Whether there is a database file; a server is taken at its word."""
        return self.folder is None or (self._copy or self.folder / CATALOG_NAME).is_file()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one consistent state."""
        if self.folder is None:
            from search.catalog.engines import EngineSession

            with self.examining() as connection:
                yield EngineSession(connection)
            return
        with storage_errors(self.library), self._sessions(self.folder).session() as session:
            yield session

    @contextmanager
    def examining(self) -> Iterator[Connection]:
        """Yield a connection of SQLAlchemy that sees one consistent state, for what `reading` can't ask."""
        with storage_errors(self.library), self._examiner().connect() as connection:
            yield connection

    def _sessions(self, folder: Path) -> lite.Pool:
        with self._opening:
            if self._pool is None:
                opened = self._open(folder)
                self._pool = lite.Pool(opened.path, opened.mode)
            return self._pool

    def _examiner(self) -> Engine:
        with self._opening:
            if self._engine is None and self.folder is None:
                from search.catalog import server

                self._engine = server.reader(self._url)
            elif self._engine is None and self.folder is not None:
                from search.catalog import engines

                opened = self._open(self.folder)
                self._engine = engines.sqlite_reader(opened.path, opened.mode)
            assert self._engine is not None
            return self._engine

    def _open(self, folder: Path) -> lite.Opened:
        """Find where to read, once."""
        if self._opened is None:
            if self._copy is not None:
                self._opened = lite.Opened(self._copy, lite.IMMUTABLE)
            else:
                self._admit(folder)
                self._opened = lite.find_readable(folder)
            if self._opened.made is not None:
                self._forget_copy = weakref.finalize(self, lite.remove_tree, self._opened.made)
        return self._opened

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield the one writing connection; each `with connection.begin()` is one durable transaction.

        Raises LibraryBusy if another process holds it, StorageError if the disk is full or not writable.
        """
        with self.locked(), self.connected() as connection:
            yield connection

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from writing. Raises LibraryBusy, StorageError."""
        if self._copy is not None:
            raise damaged(self.library, "it is damaged or missing")
        if self.folder is None:
            with self._served():
                yield
            return
        from search.catalog.lock import writer_lock

        self._admit(self.folder)
        with storage_errors(self.library), writer_lock(self.folder):
            if self._opened is not None and self._opened.frozen:
                self.close()
            make_file(self.folder / CATALOG_NAME)
            for left_behind in self.folder.glob(f"{CATALOG_NAME}.*{lite.PART}"):
                left_behind.unlink()
            yield

    @contextmanager
    def _served(self) -> Iterator[None]:
        """Hold the right to write to a database server: it goes with the connection."""
        from search.catalog import server

        with storage_errors(self.library), server.writing(self._url) as connection:
            self._held = connection
            try:
                yield
            finally:
                self._held = None

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Yield the one writing connection where this process holds the lock. Raises StorageError."""
        if self.folder is None:
            assert self._held is not None
            yield self._held
            return
        from search.catalog import engines

        engine = engines.sqlite_writer(self.folder / CATALOG_NAME)
        try:
            with engine.connect() as connection:
                yield connection
            engines.fold_back(engine)
        finally:
            engine.dispose()

    def has_logs(self) -> bool:
        """Whether commits wait in a log to be moved into the catalog, or half a commit to be undone."""
        return self.folder is not None and lite.has_logs(self.folder)

    def _admit(self, folder: Path) -> None:
        """Refuse a folder where a library is not safe, once. Raises LibraryError."""
        if not self._admitted:
            refuse_network(folder)
            refuse_foreign(folder)
            self._admitted = True

    def close(self) -> None:
        """Close what is open; the object can be used again."""
        with self._opening:
            pool, engine, forget = self._pool, self._engine, self._forget_copy
            self._pool = self._engine = self._opened = self._forget_copy = None
        if pool is not None:
            pool.close()
        if engine is not None:
            engine.dispose()
        if forget is not None:
            forget()
