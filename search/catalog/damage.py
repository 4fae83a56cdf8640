"""What a failing disk left behind: rows, vectors and structures that are not what was written.

Nothing is trusted here. Values are read with their types beside them, because one flipped bit can make a number a
text or nothing, and whatever can't be read at all becomes a problem, never an exception.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Select,
    Table,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DatabaseError

from search.catalog.rows import HALF, checksum, chunks, lengths, to_path
from search.catalog.schema import embeddings, encoders, jobs, photos, roots, runs, state
from search.catalog.seals import holds, row_checksum, schema_checksum
from search.types import Problem, ProblemKind

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CHUNK = 4096
_NAMED = re.compile(rb"CREATE (TABLE|(?:UNIQUE )?INDEX) (\w+)(?: ON (\w+))?", re.IGNORECASE)

UNREADABLE = (DatabaseError, sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged database may end with; the last where SQLite's own message quotes damaged text."""

COUNTED = (photos, jobs, runs)
"""Tables whose ids are never given twice."""

REBUILD = "can't be repaired here; run 'search rebuild'"
RESTORE = "can't be repaired here; restore the database from a backup of its server (docs/how-to/cluster.md)"


@dataclass(frozen=True, slots=True)
class BadVector:
    """A row of `embeddings` that can't be what was written; ids and checksum as far as they can be read."""

    row_id: int | None
    encoder_id: int | None
    photo_id: int | None
    crc: int | None
    wrong: str


def readable(part: Callable[[], Iterator[Any]], what: str) -> Iterator[Any]:
    """Yield what a part of the check finds; where the database gives up, a problem ends it. A lost server is none."""
    try:
        yield from part()
    except UNREADABLE as error:
        if getattr(error, "connection_invalidated", False):
            raise
        cause = getattr(error, "orig", error)
        loss = RESTORE if hasattr(cause, "sqlstate") else REBUILD
        yield Problem(ProblemKind.CATALOG_DAMAGED, f"{what} can't be read: {cause}", loss)


# ---- structure


def integrity(connection: Connection) -> Iterator[str]:
    """What SQLite finds wrong with its own structures."""
    for line in connection.execute(text("PRAGMA integrity_check")).scalars():
        if line != "ok":
            yield " ".join(str(line).split())


def schema_faults(connection: Connection) -> Iterator[str]:
    """What is wrong with the statements that made the tables, and with the names they are kept under."""
    sealed = connection.execute(select(state.c.schema_crc).where(holds(state))).first()
    if sealed is not None and sealed.schema_crc != schema_checksum(connection):
        yield "the statements that made its tables are not what they were"
    columns = ", ".join(f"CAST({name} AS BLOB)" for name in ("type", "name", "tbl_name", "sql"))
    query = f"SELECT {columns} FROM sqlite_schema"  # noqa: S608
    for kind, name, table, sql in connection.execute(text(query)):
        if not _is_named(kind or b"", name or b"", table or b"", sql):
            yield f"{_show(kind)} {_show(name)} is not kept under its own name"


def _is_named(kind: bytes, name: bytes, table: bytes, sql: bytes | None) -> bool:
    if sql is None:
        return kind == b"index" and name.startswith(b"sqlite_autoindex_" + table + b"_")
    found = _NAMED.match(sql)
    if found is None:
        return False
    made = found[1].lower().rpartition(b" ")[2]
    return (kind, name, table) == (made, found[2], found[3] or found[2])


def _show(value: bytes | None) -> str:
    return (value or b"?").decode("utf-8", "backslashreplace")


def orphans(connection: Connection) -> dict[tuple[str, str], list[int]]:
    """Row ids by table and the parent table that has no row for them."""
    found: dict[tuple[str, str], list[int]] = {}
    for table, row, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        found.setdefault((table, parent), []).append(row)
    return found


def sequence_faults(connection: Connection) -> Iterator[str]:
    """Tables whose counter of ids can't be right."""
    query = text(
        "SELECT CAST(name AS BLOB), CASE WHEN typeof(seq) = 'integer' THEN seq END, (SELECT max(id) FROM photos),"
        " (SELECT max(id) FROM jobs), (SELECT max(id) FROM runs), (SELECT purge_seq FROM state) FROM sqlite_sequence"
    )
    known = set()
    for name, seq, last_photo, last_job, last_run, purged in connection.execute(query):
        last = {b"photos": last_photo, b"jobs": last_job, b"runs": last_run}.get(name, -1) or 0
        # Photos are removed for good only with a mark in `state`: without one the counter stands at the last.
        if last < 0 or seq is None or seq < last or (name == b"photos" and purged == 0 and seq > last):
            yield _show(name)
        known.add(name)
    for table in COUNTED:
        rows = select(func.count()).select_from(table)
        if table.name.encode() not in known and connection.execute(rows).scalar():
            yield table.name


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """The schema's revision as its table has it and as that table's index repeats it."""
    query = "SELECT CAST(version_num AS BLOB) FROM alembic_version "
    found = [
        connection.execute(text(query + how)).scalar()
        for how in ("NOT INDEXED", "INDEXED BY sqlite_autoindex_alembic_version_1 WHERE version_num > ''")
    ]
    return tuple(None if value is None else _show(value) for value in found)  # type: ignore[return-value]


# ---- rows


def damaged_rows(connection: Connection, table: Table) -> Iterator[int]:
    """Row ids of a sealed table whose seal does not hold."""
    broken = or_(func.typeof(table.c.crc) != "integer", table.c.crc.is_not(row_checksum(table)))
    query: Select[Any] = select(literal_column("_rowid_")).select_from(table).where(broken)
    yield from connection.execute(query.with_hint(table, "NOT INDEXED", "sqlite")).scalars()


def raw_row(connection: Connection, table: Table, row_id: int) -> dict[str, Any]:
    """A row's values as they can be read: None for what is no number, bytes for texts."""
    columns = [
        case(
            (func.typeof(column).in_(("integer", "real")), literal_column(f"{table.name}.{column.name}")),
            else_=cast(column, LargeBinary),
        ).label(column.name)
        for column in table.columns
    ]
    row = connection.execute(select(*columns).where(literal_column("_rowid_") == row_id)).first()
    return dict(row._mapping) if row else {}


def places(connection: Connection, ids: Sequence[int]) -> dict[int, str]:
    """Where photos lie, as far as it can be told."""
    query: Select[Any] = select(
        photos.c.id, cast(photos.c.path, LargeBinary), cast(roots.c.path, LargeBinary)
    ).select_from(photos.outerjoin(roots))
    found = {}
    for chunk in chunks(ids):
        for id_, path, root in connection.execute(query.where(photos.c.id.in_(chunk))):
            found[id_] = to_path(root, path) if root and path else os.fsdecode(path or b"")
    return found


# ---- vectors


def damaged_vectors(connection: Connection) -> Iterator[BadVector]:
    """Every vector that can't be what was written, with what is wrong with it."""
    lite = connection.dialect.name == "sqlite"

    def sane(column: ColumnElement[Any], kind: str) -> ColumnElement[Any]:
        return case((func.typeof(column) == kind, column)) if lite else column

    table = embeddings.c
    query: Select[Any] = select(
        literal_column("_rowid_") if lite else null(),
        sane(table.encoder_id, "integer"),
        sane(table.photo_id, "integer"),
        sane(table.vector, "blob"),
        sane(table.crc, "integer"),
    ).with_hint(embeddings, "NOT INDEXED", "sqlite")
    dims = _dims(connection)
    for rows in connection.execute(query.execution_options(yield_per=_CHUNK)).partitions():
        sound = []
        for row in rows:
            row_id, encoder_id, photo_id, blob, crc = row
            wrong = _fault(blob, crc, photo_id, encoder_id, dims.get(encoder_id))
            if wrong:
                yield BadVector(row_id, encoder_id, photo_id, crc, wrong)
            else:
                sound.append(row)
        yield from _bad_lengths(sound, dims)


def _dims(connection: Connection) -> dict[int, int]:
    query = select(encoders.c.id, encoders.c.dim)
    if connection.dialect.name == "sqlite":
        query = query.where(holds(encoders))
    return {row.id: row.dim for row in connection.execute(query)}


def _fault(
    blob: bytes | None, crc: int | None, photo_id: int | None, encoder_id: int | None, dim: int | None
) -> str:
    if blob is None or crc is None or photo_id is None or encoder_id is None:
        return "its vector is of no type that was written"
    if checksum(blob, photo_id, encoder_id) != crc:
        return "its vector's checksum does not hold"
    if dim is None:
        return ""  # its model is damaged, and told of as such
    if len(blob) != dim * HALF.itemsize:
        return f"its vector has {len(blob) / HALF.itemsize:g} numbers, not {dim}"
    return ""


def _bad_lengths(rows: list[Any], dims: dict[int, int]) -> Iterator[BadVector]:
    for encoder_id in {row[1] for row in rows if row[1] in dims}:
        own = [row for row in rows if row[1] == encoder_id]
        vectors = np.frombuffer(b"".join(row[3] for row in own), HALF).reshape(len(own), -1)
        norms, good = lengths(vectors)
        for row, norm in zip((own[i] for i in np.flatnonzero(~good)), norms[~good], strict=True):
            yield BadVector(row[0], encoder_id, row[2], row[4], f"its vector has length {norm:.3g}")
