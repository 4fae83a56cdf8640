"""Checksums of rows: what SQLite does not notice when a bit flips, they do.

A row's `crc` covers the table's name and every other column's type and value. It is computed inside SQLite by a
function that storage registers on each connection, so sealing a batch is one statement and checking a table another.
Database servers watch over their own pages; there the column stays empty.
"""

from __future__ import annotations

import functools
import struct
import zlib
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Function,
    LargeBinary,
    Table,
    Update,
    and_,
    case,
    cast,
    func,
    inspect,
    literal,
    text,
    update,
)

from search.catalog.schema import (
    encoders,
    heads,
    in_flight,
    jobs,
    labels,
    photos,
    pictures,
    roots,
    runs,
    sidecars,
    skips,
    state,
    verdicts,
)

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import Connection

SEALED = (
    *(state, roots, encoders, photos, pictures, skips, runs, labels, verdicts, sidecars, heads),
    *(jobs, in_flight),
)
"""Tables whose rows carry a seal. An embedding's checksum comes with its vector (search.catalog.rows)."""


def register(connection: sqlite3.Connection) -> None:
    """Teach a connection to compute seals."""
    connection.create_function("row_crc", -1, _checksum, deterministic=True)


def seal(connection: Connection, *tables: Table) -> None:
    """Fill in the checksum of every row that was changed; part of the transaction that changed it.

    tables: those that hold such rows; all by default.
    """
    if connection.dialect.name != "sqlite":
        return
    for table in tables or SEALED:
        connection.execute(_sealing(table))


def seal_older(connection: Connection, table: Table) -> None:
    """Do so in a table of an older version, which lacks columns."""
    there = {column["name"] for column in inspect(connection).get_columns(table.name)}
    lacks = frozenset(table.columns.keys()) - there
    connection.execute(update(table).where(table.c.crc.is_(None)).values(crc=row_checksum(table, lacks)))


@functools.cache
def _sealing(table: Table) -> Update:
    """Return the statement that seals; putting it together takes longer than running it."""
    return update(table).where(table.c.crc.is_(None)).values(crc=row_checksum(table))


def row_checksum(table: Table, lacks: frozenset[str] = frozenset()) -> ColumnElement[int]:
    """Return the expression that computes a row's checksum, in SQL.   lacks: columns that are not there yet."""
    columns = [column for column in table.columns if column.name not in {"crc", *lacks}]
    kinds = [func.typeof(column) for column in columns]
    # As bytes every value can be handed over, whatever a flipped bit made of it. Only a real number is not: how it
    # reads as text differs between versions of SQLite.
    values = [case((func.typeof(c) == "real", c), else_=cast(c, LargeBinary)) for c in columns]
    return Function("row_crc", literal(table.name), *kinds, *values, type_=BigInteger())


def holds(table: Table) -> ColumnElement[bool]:
    """Rows whose seal says that they are what was written."""
    return and_(func.typeof(table.c.crc) == "integer", table.c.crc == row_checksum(table))


def schema_checksum(connection: Connection) -> int:
    """Return the CRC-32 of the statements that made the catalog's tables and indexes."""
    statements = connection.execute(
        text("SELECT CAST(sql AS BLOB) FROM sqlite_schema ORDER BY type, name")
    ).scalars()
    return zlib.crc32(b"\0".join(statement or b"" for statement in statements))


def seal_schema(connection: Connection) -> None:
    """Remember the schema's checksum; part of the transaction that made or changed it."""
    if connection.dialect.name == "sqlite":
        connection.execute(update(state).values(schema_crc=schema_checksum(connection)))


_pack_length = struct.Struct("<q").pack
# What most arguments are: the names of types, with their lengths before them.
_KINDS = {kind: _pack_length(len(kind)) + kind.encode() for kind in ("null", "integer", "real", "text", "blob")}


def _checksum(*values: str | bytes | float | None) -> int:
    parts: list[bytes] = []
    for value in values:
        if value is None:
            continue
        if isinstance(value, str):
            if kind := _KINDS.get(value):
                parts.append(kind)
                continue
            value = value.encode("utf-8", "surrogatepass")
        elif isinstance(value, float):
            value = struct.pack("<d", value)
        parts += (_pack_length(len(value)), value)
    return zlib.crc32(b"".join(parts))
