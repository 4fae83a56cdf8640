"""Is the catalog whole? A quick look at what matters most, or every row, every vector and every structure."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select, text

from search.catalog import versions
from search.catalog.damage import REBUILD, RESTORE, damaged_rows, readable, revisions
from search.catalog.engines import EngineSession
from search.catalog.repair import Remedy, remedies, without_vector
from search.catalog.schema import encoders, in_flight, jobs, photos, roots, state
from search.catalog.spares import Copy, Spares
from search.types import Problem, ProblemKind

if TYPE_CHECKING:
    from sqlalchemy import Connection

SMALL = 20_000
"""Photos up to which even a quick look is a look at everything."""

SQLITE_VERSION = sqlite3.sqlite_version


def is_small(connection: Connection) -> bool:
    """Whether everything can be looked at in about a second."""
    return next(readable(lambda: iter([_count(connection) <= SMALL]), "its photos")) is True


def _count(connection: Connection) -> int:
    count: int = connection.execute(select(func.count()).select_from(photos)).scalar_one()
    return count


def find_problems(
    connection: Connection,
    *,
    full: bool,
    copy: Copy | None,
    location: str,
) -> Iterator[Problem]:
    """Yield what is wrong, in the order in which it matters. Raises OldLibrary, NewerLibrary.

    full: every row, vector and structure.   copy: where a repair would take sound rows from.
    """
    yield from readable(lambda: _revision(connection, location), "its schema's revision")
    if connection.dialect.name == "postgresql":
        yield from readable(lambda: _damaged_pages(connection), "what its server knows of damage")
    yield from _everything(connection, copy) if full else _essentials(connection)


def _everything(connection: Connection, copy: Copy | None) -> Iterator[Problem]:
    with Spares(copy) as spares:
        for remedy in remedies(connection, spares):
            yield remedy.problem


def _essentials(connection: Connection) -> Iterator[Problem]:
    if connection.dialect.name == "sqlite":
        yield from readable(lambda: _small_tables(connection), "its tables")
    yield from map(_problem, readable(lambda: without_vector(connection), "its vectors"))


def _damaged_pages(connection: Connection) -> Iterator[Problem]:
    """Pages whose checksum did not hold when the server read them, as far as it has checksums and read them."""
    query = "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()"
    if failures := connection.execute(text(query)).scalar():
        yield Problem(ProblemKind.CATALOG_DAMAGED, f"its server found {failures} damaged pages", RESTORE)


def _problem(found: Remedy | Problem) -> Problem:
    return found.problem if isinstance(found, Remedy) else found


def _revision(connection: Connection, location: str) -> Iterator[Problem]:
    session = EngineSession(connection)
    found = versions.revision(session)
    if found is None:
        loss = REBUILD if connection.dialect.name == "sqlite" else RESTORE
        yield Problem(ProblemKind.CATALOG_DAMAGED, "its tables are gone", loss)
    elif connection.dialect.name != "sqlite" or versions.HISTORY[-1] not in revisions(connection):
        versions.check(session, found, location)


def _small_tables(connection: Connection) -> Iterator[Problem]:
    """Tables of a few rows, and whether the state has its one."""
    loss = "'search check --full' says what repairing it loses"
    for table in (state, roots, encoders, jobs, in_flight):
        for row_id in damaged_rows(connection, table):
            detail = f"row {row_id} of {table.name} is not what was written"
            yield Problem(ProblemKind.ROW_DAMAGED, detail, loss)
    if connection.execute(select(func.count()).select_from(state)).scalar_one() != 1:
        yield Problem(ProblemKind.ROW_DAMAGED, "the catalog's state is gone", loss)


def low_space(folder: Path) -> str:
    """Say that a repair, an upgrade or a generation may not find room for another catalog or two; '' if it will."""
    free = shutil.disk_usage(folder).free
    needed = 2 * sum(file.stat().st_size for file in folder.glob("catalog.db*") if file.suffix != ".bak")
    return f"{free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB would be good" if free < needed else ""
