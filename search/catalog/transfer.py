"""All rows of one catalog in another, whatever database either is kept by.

What can be read back is held against what was read before any of it counts: by a digest of the rows' values, which
depends neither on their order nor on how a database keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Row, Table, func, insert, select, text, update

from search.catalog.failures import storage_errors
from search.catalog.schema import metadata, state
from search.catalog.seals import SEALED, seal
from search.catalog.server import ZERO
from search.errors import LibraryError, UsageError
from search.failpoints import reach

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CHUNK = 1000
_CARRIED = ("seq", "purge_seq", "encoder_id")
"""What a state says that is not of its own catalog alone."""
_MODULUS = 1 << 128

T = TypeVar("T")


@dataclass(slots=True)
class _Digest:
    """How many rows there are, and the sum of their hashes."""

    rows: int = 0
    total: int = 0

    def add(self, rows: Sequence[Row[Any]]) -> None:
        for row in rows:
            values = (value.replace("\0", ZERO) if isinstance(value, str) else value for value in row)
            hashed = hashlib.blake2b(repr(tuple(values)).encode("utf-8", "surrogatepass"), digest_size=16)
            self.total = (self.total + int.from_bytes(hashed.digest(), "little")) % _MODULUS
        self.rows += len(rows)


def transfer(
    source: Connection, target: Connection, *, origin: str, told: Callable[[int, int], None]
) -> dict[str, int]:
    """Give an empty catalog all rows of another one, in one transaction; return how many by table.

    Rows keep their ids, and no id that was ever given is given again. What a catalog knows of its own files, such as
    generations, stays behind.   origin: how errors name the source.   told: how many rows were written, of how many.
    Raises UsageError for a catalog that holds something, LibraryError where what was written is not what was read.
    """
    with target.begin():
        check_empty(target)
        with storage_errors(origin):
            total, done = sum(_count(source, table) for table in _tables()), 0
        written = {}
        for table in _tables():
            for count in _copy(table, source, target, origin):
                told(done + count, total)
            written[table.name] = count
            done += count
        _carry(source, target)
        seal(target)
        reach("transfer.compared")
    return written


def _tables() -> list[Table]:
    """Return the tables whose rows are moved, parents first."""
    return [table for table in metadata.sorted_tables if table is not state]


def check_empty(target: Connection) -> None:
    """Raise UsageError for a catalog that holds something."""
    filled = [table.name for table in _tables() if target.execute(select(table).limit(1)).first()]
    if filled:
        raise UsageError("the destination holds a library already", hint="name a place that holds none")


def _count(connection: Connection, table: Table) -> int:
    count: int = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return count


def _copy(table: Table, source: Connection, target: Connection, origin: str) -> Iterator[int]:
    """Copy a table's rows and compare them; yield how many were copied so far, at the end how many there are."""
    read, back = _Digest(), _Digest()
    for rows in _named(origin, _rows(source, table)):
        target.execute(insert(table), [row._asdict() for row in rows])
        read.add(rows)
        yield read.rows
    for rows in _rows(target, table):
        back.add(rows)
    if read != back:
        raise LibraryError(f"{back.rows} of {read.rows} rows of {table.name} arrived, or not all as they were")
    yield read.rows


def _rows(connection: Connection, table: Table) -> Iterator[Sequence[Row[Any]]]:
    """Yield a table's rows in parts, without their seals, which each catalog sets itself."""
    columns = [column for column in table.columns if table not in SEALED or column.name != "crc"]
    with connection.execute(select(*columns), execution_options={"yield_per": _CHUNK}) as result:
        yield from result.partitions()


def _named(library: str, parts: Iterator[T]) -> Iterator[T]:
    """Yield parts; what goes wrong while one is read is this library's failure, not that of whoever takes it."""
    with storage_errors(library):
        yield from parts


def _carry(source: Connection, target: Connection) -> None:
    said = source.execute(select(*(state.c[name] for name in _CARRIED))).one()
    target.execute(update(state).values(**said._asdict(), crc=None))
    for table in filter(_counts, _tables()):
        # Where nothing was ever removed the last id is there: a server also counts those of what was rolled back.
        _count_on(target, table, _last_id(source, table) if said.purge_seq else _highest_id(source, table))


def _counts(table: Table) -> bool:
    """Whether the database itself gives this table's rows their ids."""
    return table.autoincrement_column is not None


def _highest_id(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.max(table.c.id))).scalar() or 0


def _last_id(connection: Connection, table: Table) -> int:
    """Return the highest id that was ever given, as far as the database remembers."""
    highest = _highest_id(connection, table)
    if connection.dialect.name == "sqlite":
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        return max(highest, connection.execute(query, {"name": table.name}).scalar() or 0)
    query = text("SELECT last_value FROM pg_sequences WHERE format('%I.%I', schemaname, sequencename) = :name")
    return max(highest, connection.execute(query, {"name": _sequence(connection, table)}).scalar() or 0)


def _sequence(connection: Connection, table: Table) -> str:
    """Return the name of what counts a table's ids on a server."""
    name: str = connection.execute(
        text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table.name}
    ).scalar_one()
    return name


def _count_on(connection: Connection, table: Table, last: int) -> None:
    """Have ids given from here on be higher than `last`."""
    if not last:
        return
    if connection.dialect.name != "sqlite":
        query = "SELECT setval(CAST(:sequence AS regclass), :last)"
        connection.execute(text(query), {"sequence": _sequence(connection, table), "last": last})
    elif table.dialect_kwargs.get("sqlite_autoincrement"):
        values = {"name": table.name, "last": last}
        known = connection.execute(text("UPDATE sqlite_sequence SET seq = :last WHERE name = :name"), values)
        if not known.rowcount:
            connection.execute(text("INSERT INTO sqlite_sequence VALUES (:name, :last)"), values)
