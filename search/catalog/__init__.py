"""Every table and every SQL statement: photos, embeddings per encoder, labels, filters → ids.

Asking a SQLite catalog imports nothing but SQLite (search.catalog.reading); the writer, the schema, servers, and
looking for damage import SQLAlchemy when they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from search.catalog.failures import storage_errors
from search.catalog.reading import CatalogReader, Changes
from search.catalog.rows import EncoderRow, KnownFile, moment_in_name
from search.catalog.scopes import Scope
from search.catalog.storage import CATALOG_NAME
from search.catalog.turn import Turn
from search.errors import (
    DamagedLibrary,
    LibraryBusy,
    LibraryError,
    LibraryNotFound,
    LibraryUnreachable,
    NewerLibrary,
    OldLibrary,
    StorageError,
)
from search.types import Problem, ProblemKind

if TYPE_CHECKING:
    from search.catalog.spares import Copy
    from search.catalog.writer import Writer

__all__ = ["Catalog", "Changes", "EncoderRow", "KnownFile", "Scope", "Turn", "Writer"]


_CHECK_FIRST = "run 'search check --repair' first"


def __getattr__(name: str) -> Any:
    """Import the writer on first use."""
    if name != "Writer":
        raise AttributeError(f"module 'search.catalog' has no attribute {name!r}")
    from search.catalog.writer import Writer

    return Writer


class Catalog(CatalogReader):
    """Remembers every photo and its embedding per encoder, in any database SQLAlchemy reaches."""

    def create(self) -> None:
        """Make the catalog unless it is there; one whose making was cut short is made anew."""
        if self.is_begun():
            return
        from search.catalog import upgrades

        with self._storage.writing() as connection:
            upgrades.create(connection)

    def new_backup(self) -> str | None:
        """Return the name of a backup that does not exist yet; None for a database server."""
        if self.folder is None:
            return None
        return str(self.folder / f"{CATALOG_NAME}.{moment_in_name()}.bak")

    def upgrade(self) -> str:
        """Bring the schema to this version's; returns the revision it had."""
        if not self.exists():
            raise self._not_found()
        from search.catalog import upgrades

        return upgrades.upgrade(self._storage)

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Yield the library's only writer. Raises LibraryBusy, StorageError, NewerLibrary."""
        with self.turn() as turn:
            yield turn.writer

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Hold the library for writing; the writer is opened when it is asked for. Raises what `writing` does."""
        self._check_known()
        with self._storage.locked(), ExitStack() as stack:
            yield Turn(self._storage, stack)

    def _check_known(self) -> None:
        """Refuse a catalog that this version does not know all of. Raises NewerLibrary and as reading does."""
        self._check()
        if self._newer is not None:
            raise self._newer

    def switch_generation(self, writer: Writer, number: int, *, seq: int, manifest_hash: str) -> None:
        """Let readers use this generation from now on. Raises StorageError."""
        with storage_errors(self.shown):
            writer.switch_generation(number, seq=seq, manifest_hash=manifest_hash)

    def copy_into(self, other: Catalog, *, told: Callable[[int, int], None]) -> dict[str, int]:
        """Give another catalog, made if need be, all rows of this one, or none; return how many by table.

        To be called in a `turn`, so that nobody writes here meanwhile.   told: how many rows were written, of how many.
        Raises UsageError if the other holds something, DamagedLibrary if this one is damaged, and as `writing`.
        """
        from search.catalog.check import find_problems
        from search.catalog.transfer import check_empty, transfer

        if other.has_copies() and not other.is_begun():
            raise other._not_found()  # a library was there, and may be made anew
        other.create()
        other._check_known()
        with other._storage.writing() as target, target.begin():
            check_empty(target)  # before all else, which may take long
        with self._storage.examining() as source:
            for problem in find_problems(source, full=True, copy=None, location=self.shown):
                if problem.kind is not ProblemKind.VECTOR_MISSING:  # which the next run mends, wherever it is
                    raise DamagedLibrary(f"{self.shown} is damaged: {problem.detail}", hint=_CHECK_FIRST)
            with other._storage.writing() as target:
                return transfer(source, target, origin=self.shown, told=told)

    # ---- damage

    def problems(self, *, full: bool | None = None, copy: Copy | None = None) -> tuple[list[Problem], bool]:
        """Return what is wrong, and whether everything was looked at: with `full`, or by default where it is quick.

        copy: where a repair would take sound rows from.   Raises OldLibrary, NewerLibrary; damage is a problem.
        """
        from search.catalog.check import find_problems, is_small
        from search.catalog.damage import REBUILD, RESTORE

        if not self.exists():
            raise self._not_found()
        try:
            if not self.is_begun() and not self.has_copies():
                raise self._not_found()
            with self._storage.examining() as connection:
                whole = is_small(connection) if full is None else full
                found = find_problems(connection, full=whole, copy=copy, location=self.shown)
                return list(found), whole
        except (LibraryBusy, LibraryNotFound, LibraryUnreachable, NewerLibrary, OldLibrary, StorageError):
            raise
        except (LibraryError, UnicodeDecodeError) as error:
            loss = REBUILD if self.folder else RESTORE
            return [Problem(ProblemKind.CATALOG_DAMAGED, str(error), loss)], bool(full)

    def low_space(self) -> str:
        """Say, in words, if there is little room left for what a library needs beside its catalog; else ''."""
        from search.catalog.check import low_space

        return low_space(self.folder) if self.folder else ""

    def repair(self, copy: Copy | None = None) -> tuple[int, str | None]:
        """Restore or drop what is damaged; return how many rows and the backup made before, if there was a need.

        Raises LibraryError where the damage goes deeper, and leaves everything as it was.
        """
        from search.catalog.damage import REBUILD
        from search.catalog.writer import Writer

        if not self.exists():
            raise self._not_found()
        backup = self.new_backup()
        try:
            with self._storage.writing() as connection:
                repaired = Writer(connection).repair(backup, copy)
        except UnicodeDecodeError as error:  # SQLite's message quotes damaged text
            raise LibraryError(f"the catalog of {self.shown} can't be read", hint=REBUILD) from error
        self.close()  # what was read before does not hold
        return repaired, backup if repaired else None
