"""Vectors in PostgreSQL with pgvector: half precision, an HNSW graph that goes on until enough rows pass a filter.

One table, and one of a single row beside it that says whose they are; both change in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar, assert_never
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np

from search.errors import IndexMismatch, IndexUnavailable, UsageError
from search.extras import how_to_add
from search.postgresql import PATIENCE
from search.vectors.stores import Stamp, check_owner, pieces
from search.vectors.stores.declared import COLUMNS, Compared, Every, OneOf, Other, Some

if TYPE_CHECKING:
    from search.types import Ids, Vectors
    from search.vectors.stores.declared import Test, Value

T = TypeVar("T")

_STATE = "_state"
_TABLE = "search_vectors"
_TYPES = {"integer": "bigint", "real": "double precision", "text": "text"}
_INDEXED = ("taken_at", "camera", "latitude")
_PUT = 2000  # rows in one statement
_ASK_MS, _WRITE_MS, _NO_LIMIT = 30_000, 3_600_000, 0
_TRIES, _PAUSE_S = 3, 0.3
_ENOUGH_S = 8.0  # of trying: a question that took longer is not asked again
_EXACT = 10_000  # rows up to which the graph is left aside
_DEEPEST = 16_000
_LEAST_EF, _MOST_EF = 250, 1000  # the greatest that pgvector takes
_MOST_SCANNED = 200_000  # rows of the graph looked at for one search; then another way is tried
_SCAN_MEMORY = 16  # times work_mem (4 MB) that they may take
_OLDEST = (0, 8)  # of pgvector: it goes on until enough rows pass a filter


class PgvectorStore:
    """See Store for the contract.   url: postgresql://user@host/database?table=name, of SQLAlchemy's form too."""

    kind = "pgvector"
    deepest = _DEEPEST

    def __init__(self, url: str, *, named: str = "") -> None:
        self.place = named or url
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._table = query.pop("table", _TABLE)
        if not self._table.isidentifier() or not self._table.isascii() or len(self._table) > 50:
            raise UsageError(f"no table of an index can be called {self._table!r}")
        self._uri = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(query), ""))
        self._known: Any = None
        self._exact: bool | None = None  # few enough rows to score each

    # ---- what is there

    def stamp(self) -> Stamp | None:
        def ask(connection: Any) -> Stamp | None:
            if not self._has(connection, self._state):
                if self._has(connection, self._table):
                    raise IndexMismatch(f"{self.place} has a table of something else, which is left alone")
                return None
            row = connection.execute(f"SELECT stamp FROM {self._state}").fetchone()  # noqa: S608
            return Stamp.parse(row[0], self.place) if row else None

        stamp = self._ask(ask)
        self._exact = None if stamp is None else stamp.rows <= _EXACT
        return stamp

    def begin(self, stamp: Stamp) -> None:
        check_owner(self.stamp(), stamp.library, self.place)
        columns = ", ".join(f"{name} {_TYPES[kind]} NOT NULL" for name, kind in COLUMNS.items())

        def make(connection: Any) -> None:
            self._extend(connection)
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._state} (stamp text NOT NULL)")
            self._write_stamp(connection, stamp)
            connection.execute(f"DROP TABLE IF EXISTS {self._table}")
            connection.execute(
                f"CREATE TABLE {self._table} (id bigint PRIMARY KEY, vector halfvec({stamp.dim}) NOT NULL, {columns})"
            )

        self._ask(make, most_ms=_WRITE_MS)
        self._exact = True

    def _extend(self, connection: Any) -> None:
        """Make sure of the extension. Raises IndexUnavailable where it can't be had, or is too old."""
        import psycopg

        query = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        found = connection.execute(query).fetchone()
        if found is None:
            try:
                with connection.transaction():
                    connection.execute("CREATE EXTENSION vector")
            except psycopg.Error as error:
                raise IndexUnavailable(
                    f"the database has no pgvector and it can't be added: {_reason(error)}",
                    hint="have it installed and 'CREATE EXTENSION vector' run, or choose another index",
                ) from error
            found = connection.execute(query).fetchone()
        if tuple(map(int, found[0].split(".")[:2])) < _OLDEST:
            raise IndexUnavailable(
                f"the database has pgvector {found[0]}, and 0.8 or later is needed",
                hint="have a newer one installed and 'ALTER EXTENSION vector UPDATE' run, or choose another index",
            )

    def _write_stamp(self, connection: Any, stamp: Stamp) -> None:
        connection.execute(f"DELETE FROM {self._state}")  # noqa: S608
        connection.execute(f"INSERT INTO {self._state} VALUES (%s)", [stamp.to_text()])  # noqa: S608

    # ---- changes

    def put(self, ids: Ids, vectors: Vectors, columns: Sequence[Sequence[Value]]) -> None:
        names = ("vector", *COLUMNS)
        changes = ", ".join(f"{name} = excluded.{name}" for name in names)
        target = f"({', '.join(('id', *names))})"

        def copy(connection: Any, some: slice) -> None:
            connection.execute(f"CREATE TEMPORARY TABLE fresh (LIKE {self._table}) ON COMMIT DROP")
            with connection.cursor().copy(f"COPY fresh {target} FROM STDIN") as sink:
                for id_, vector, row in zip(ids[some].tolist(), vectors[some], columns[some], strict=True):
                    sink.write_row((id_, _vector(vector), *row))
            connection.execute(
                f"INSERT INTO {self._table} {target} SELECT {target[1:-1]} FROM fresh "  # noqa: S608
                f"ON CONFLICT (id) DO UPDATE SET {changes}"
            )

        for start in range(0, len(ids), _PUT):
            some = slice(start, start + _PUT)
            self._ask(lambda connection, some=some: copy(connection, some), most_ms=_WRITE_MS)  # type: ignore[misc]

    def delete(self, ids: Ids) -> None:
        query = f"DELETE FROM {self._table} WHERE id = ANY(%s)"  # noqa: S608
        for some in pieces(ids):
            self._ask(
                lambda connection, some=some: connection.execute(query, [some.tolist()]),  # type: ignore[misc]
                most_ms=_WRITE_MS,
            )

    def finish(self, stamp: Stamp, *, changed: int) -> Stamp:
        def write(connection: Any) -> Stamp:
            (rows,) = connection.execute(f"SELECT count(*) FROM {self._table}").fetchone()  # noqa: S608
            # After the first rows are there: a graph is built far faster than it grows.
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {self._table}_near ON {self._table} USING hnsw "
                "(vector halfvec_ip_ops) WITH (m = 16, ef_construction = 100)"
            )
            for name in _INDEXED:
                connection.execute(f"CREATE INDEX IF NOT EXISTS {self._table}_{name} ON {self._table} ({name})")
            done = replace(stamp, rows=rows)
            self._write_stamp(connection, done)
            return done

        done: Stamp = self._ask(write, most_ms=_NO_LIMIT)  # the graph of ten million rows takes hours
        if changed > _PUT:
            self._ask(lambda connection: connection.execute(f"ANALYZE {self._table}"), most_ms=_WRITE_MS)
        self._exact = done.rows <= _EXACT
        return done

    # ---- questions

    def search(
        self, vectors: Vectors, count: int, *, test: Test | None = None, within: Ids | None = None
    ) -> list[Ids]:
        if not count or (within is not None and not len(within)):
            return [np.empty(0, np.int64) for _ in vectors]
        values: list[Any] = []
        said = ["TRUE"] if test is None else [_condition(test, values)]
        if within is not None:
            said.append("id = ANY(%s)")
            values.append(within.tolist())
        query = (
            f"SELECT id FROM {self._table} WHERE {' AND '.join(said)} "  # noqa: S608
            "ORDER BY vector <#> %s::halfvec LIMIT %s"
        )
        effort = min(max(_LEAST_EF, 2 * count), _MOST_EF)

        def ask(connection: Any) -> list[Ids]:
            if self._exact or within is not None:
                connection.execute("SET LOCAL enable_indexscan = off")
            connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            connection.execute(f"SET LOCAL hnsw.ef_search = {effort}")
            connection.execute(f"SET LOCAL hnsw.max_scan_tuples = {_MOST_SCANNED}")
            connection.execute(f"SET LOCAL hnsw.scan_mem_multiplier = {_SCAN_MEMORY}")
            found = [connection.execute(query, [*values, _vector(vector), count]).fetchall() for vector in vectors]
            return [np.array([id_ for (id_,) in rows], np.int64) for rows in found]

        return self._ask(ask)

    def ids(self) -> Ids:
        def ask(connection: Any) -> Ids:
            with connection.cursor(name="ids") as cursor:
                cursor.itersize = 50_000
                cursor.execute(f"SELECT id FROM {self._table}")  # noqa: S608
                return np.fromiter((id_ for (id_,) in cursor), np.int64)

        return np.sort(self._ask(ask, most_ms=_WRITE_MS))

    def size_bytes(self) -> int:
        query = "SELECT coalesce(pg_total_relation_size(to_regclass(%s)), 0)"
        return self._ask(lambda connection: int(connection.execute(query, [self._table]).fetchone()[0]))

    def drop(self) -> None:
        self._ask(lambda connection: connection.execute(f"DROP TABLE IF EXISTS {self._table}, {self._state}"))

    def close(self) -> None:
        if self._known is not None:
            self._known.close()
            self._known = None

    # ---- the server

    @property
    def _state(self) -> str:
        return self._table + _STATE

    def _has(self, connection: Any, table: str) -> bool:
        return connection.execute("SELECT to_regclass(%s)", [table]).fetchone()[0] is not None

    def _connection(self) -> Any:
        if self._known is None:
            import psycopg

            # Nothing is prepared: a plan for any filter would be kept for those that few photos pass.
            self._known = psycopg.connect(
                self._uri,
                application_name="search index",
                prepare_threshold=None,
                **PATIENCE,
            )
        return self._known

    def _ask(self, ask: Callable[[Any], T], *, most_ms: int = _ASK_MS) -> T:
        """Ask in one transaction; again, a little later each time, where the connection was lost."""
        with self._told():
            import psycopg

            began = monotonic()
            for number in range(1, _TRIES + 1):
                try:
                    connection = self._connection()
                    with connection.transaction():
                        connection.execute(f"SET LOCAL statement_timeout = {most_ms}")
                        return ask(connection)
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    with suppress(Exception):
                        self.close()
                    self._known = None
                    too_long = monotonic() - began > _ENOUGH_S or isinstance(error, psycopg.errors.QueryCanceled)
                    if number == _TRIES or too_long:
                        raise
                    sleep(_PAUSE_S * 2**number)
        raise AssertionError

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what went wrong at the server as IndexUnavailable."""
        try:
            import psycopg
        except ImportError as error:
            raise IndexUnavailable(
                f"the index {self.place} needs a driver of PostgreSQL, which is not installed",
                hint=how_to_add("postgresql"),
            ) from error
        try:
            yield
        except psycopg.Error as error:
            raise IndexUnavailable(
                f"the index {self.place} does not answer: {_reason(error)}",
                hint="see whether PostgreSQL runs there; nothing is lost, the catalog has every vector",
            ) from error


def _condition(test: Test, values: list[Any]) -> str:
    """Return a condition as SQL; its values are added to those there are."""
    match test:
        case Compared(column, operator, value):
            values.append(value)
            return f"{column} {'<>' if operator == '!=' else operator} %s"
        case OneOf(column, several):
            values.append(list(several))
            return f"{column} = ANY(%s)"
        case Every(parts):
            return "(" + " AND ".join([_condition(part, values) for part in parts]) + ")"
        case Some(parts):
            return "(" + " OR ".join([_condition(part, values) for part in parts]) + ")"
        case Other(part):
            return f"(NOT {_condition(part, values)})"
        case _:
            assert_never(test)


def _vector(vector: Vectors) -> str:
    return "[" + ",".join(map(repr, vector.astype(np.float16).astype(np.float32).tolist())) + "]"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
